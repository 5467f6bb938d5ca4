"""Checks that a deployment serves jina-embeddings-v4, by published cosines.

The cosines are between one sentence in four languages, task text-matching, 1024 dimensions. They come from
the sample files of jina-ai/jina-sagemaker.
"""

from typing import NamedTuple

import numpy as np

from triptych.router.client.clients import Client

TEXTS = {
    "en": "A beautiful sunset over the beach",
    "fr": "Un beau coucher de soleil sur la plage",
    "zh": "海滩上美丽的日落",
    "ja": "浜辺に沈む美しい夕日",
}
PUBLISHED = {("en", "fr"): 0.9611, ("en", "zh"): 0.8915, ("en", "ja"): 0.8858, ("zh", "ja"): 0.9458}
DIMENSIONS = 1024

# Another kernel or batch changes bfloat16 vectors a little. The vendor accepts a cosine of 0.9992 to 0.9998
# between its own servers' vectors of one text. If two vectors move that far in independent directions, the
# cosine between them shrinks by up to 1 - 0.9992**2 = 0.0016. The tolerance is three times that.
TOLERANCE = 0.005
# A larger difference is not a matter of precision: these are other weights.
FAR_OFF = 0.05


class Row(NamedTuple):
    """One pair of texts."""

    pair: str
    published: float
    found: float

    @property
    def difference(self) -> float:
        """Found minus published."""
        return self.found - self.published

    @property
    def passes(self) -> bool:
        """Whether the difference is within the tolerance."""
        return abs(self.difference) <= TOLERANCE


def measure(client: Client) -> list[Row]:
    """Embed the published texts, and compare the cosines. Raises like `Client.embed`."""
    matrix = client.embed(TEXTS.values(), task="text-matching", dimensions=DIMENSIONS)
    unit = dict(zip(TEXTS, matrix / np.linalg.norm(matrix, axis=1, keepdims=True), strict=True))
    return [
        Row(f"{one}-{other}", cosine, float(unit[one] @ unit[other]))
        for (one, other), cosine in PUBLISHED.items()
    ]


def report(rows: list[Row]) -> str:
    """A table of all pairs, and a verdict."""
    lines = [f"{'pair':8} {'published':>9} {'found':>9} {'difference':>10}"]
    lines += [
        f"{row.pair:8} {row.published:9.4f} {row.found:9.4f} {row.difference:+10.4f}"
        f"{'' if row.passes else '  differs'}"
        for row in rows
    ]
    worst = max(abs(row.difference) for row in rows)
    if worst <= TOLERANCE:
        verdict = f"PASS: all within {TOLERANCE} of the published cosines."
    elif worst <= FAR_OFF:
        names = ", ".join(row.pair for row in rows if not row.passes)
        verdict = (
            f"FAIL: {names} differ by up to {worst:.4f}. Another GPU, kernel or batch explains at most "
            f"{TOLERANCE}. The weights look right, but something between text and vector is wrong: the "
            "prompt, the merge or the quantization."
        )
    else:
        verdict = (
            f"FAIL: off by {worst:.4f}. These are not the vectors of jina-embeddings-v4. This may be the "
            "demo, which has random weights, or a checkpoint of another task or model."
        )
    return "\n".join([*lines, "", verdict])
