"""Are these the vectors of jina-embeddings-v4? Compares a deployment with figures its makers published.

The figures: cosines between one sentence in four languages, task text-matching, 1024 dimensions, from the
sample files of jina-ai/jina-sagemaker.
"""

from collections.abc import Mapping
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np

from router.client.replies import Floats
from router.client.synchronous import Client

TEXTS = {
    "en": "A beautiful sunset over the beach",
    "fr": "Un beau coucher de soleil sur la plage",
    "zh": "海滩上美丽的日落",
    "ja": "浜辺に沈む美しい夕日",
}
PUBLISHED = {("en", "fr"): 0.9611, ("en", "zh"): 0.8915, ("en", "ja"): 0.8858, ("zh", "ja"): 0.9458}
TASK: Literal["text-matching"] = "text-matching"
DIMENSIONS = 1024

# Another kernel or batch moves bfloat16 vectors a little: the makers accept a cosine of 0.9992 to 0.9998
# between the vectors that their own servers give for one text. When two vectors turn that far, each in a
# direction of its own (which in 1024 dimensions is almost at a right angle to the other vector), the cosine
# between them shrinks by up to 1 - 0.9992**2 = 0.0016. The tolerance is three times that.
TOLERANCE = 0.005
# Past this it is no matter of precision: these are other weights.
FAR_OFF = 0.05


class Row(NamedTuple):
    """One pair of texts."""

    pair: str
    published: float
    found: float

    @property
    def difference(self) -> float:
        """How far the cosine found lies above the one published."""
        return self.found - self.published

    @property
    def passes(self) -> bool:
        """Whether it lies within the tolerance."""
        return abs(self.difference) <= TOLERANCE


def compare(vectors: Mapping[str, Floats]) -> list[Row]:
    """The published pairs and what `vectors`, one for each language, make of them."""
    unit = {name: vector / np.linalg.norm(vector) for name, vector in vectors.items()}
    return [
        Row(f"{one}-{other}", PUBLISHED[one, other], float(unit[one] @ unit[other]))
        for one, other in combinations(TEXTS, 2)
        if (one, other) in PUBLISHED
    ]


def report(rows: list[Row]) -> str:
    """The table, and what it means."""
    lines = [f"{'pair':8} {'published':>9} {'found':>9} {'difference':>10}"]
    lines += [
        f"{row.pair:8} {row.published:9.4f} {row.found:9.4f} {row.difference:+10.4f}"
        f"{'' if row.passes else '  differs'}"
        for row in rows
    ]
    worst = max(abs(row.difference) for row in rows)
    if worst <= TOLERANCE:
        verdict = f"PASS: all within {TOLERANCE} of what was published."
    elif worst <= FAR_OFF:
        names = ", ".join(row.pair for row in rows if not row.passes)
        verdict = (
            f"FAIL: {names} differ by up to {worst:.4f}, more than the {TOLERANCE} that another GPU, kernel "
            "or batch accounts for. The weights look right, but something between text and vector does not: "
            "the prompt, the merge, quantisation."
        )
    else:
        verdict = (
            f"FAIL: off by {worst:.4f}. These are not the vectors of jina-embeddings-v4: this looks like the "
            "demo, whose weights are random, or like a checkpoint of another task or model."
        )
    return "\n".join([*lines, "", verdict])


def verify(client: Client) -> tuple[bool, str]:
    """Embed the published texts; whether they pass, and the report. Raises what `Client.embed` raises."""
    matrix = client.embed(TEXTS.values(), task=TASK, dimensions=DIMENSIONS)
    rows = compare(dict(zip(TEXTS, matrix, strict=True)))
    return all(row.passes for row in rows), report(rows)
