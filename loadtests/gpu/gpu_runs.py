"""What sections measure with: texts a second by length, the highest rate of queries, single vectors."""

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from tokenizers import Tokenizer

from triptych.loadtests.bench.loops import Connection, Request, Vector, open_loop, poisson, post
from triptych.loadtests.bench.sections import Scale
from triptych.loadtests.bench.sections.compared import Load, side_by_side
from triptych.loadtests.bench.systems import System, read_frames
from triptych.loadtests.bench.texts import Texts
from triptych.loadtests.gpu.flops import flops_per_token
from triptych.loadtests.gpu.gpu_engines import Engines, Size
from triptych.loadtests.gpu.gpu_report import PEAK, SHARE, TOKENS, Outcome, Report, figure
from triptych.loadtests.server_processes import Server
from triptych.workers.checkpoints.folders import load_json
from triptych.workers.checkpoints.layout import CONFIG, TOKENIZER
from triptych.workers.shared import contract
from triptych.workers.shared.families import V4

QUERY_TOKENS, QUERY_P99_SECONDS = 30, 0.05
# A query without an answer for so long counts as failed.
QUERY_PATIENCE = 2.0
SEARCH_STEPS = 8
ASK_SECONDS = 60.0


class Shape(NamedTuple):
    """Texts of `tokens` tokens, prefix included; `texts` of them a request. Or images."""

    tokens: int
    connections: int
    texts: int = 1
    of: Literal["texts", "images"] = "texts"

    @property
    def name(self) -> str:
        if self.texts == 1:
            return f"{self.tokens:,}-token {self.of}, concurrency {self.connections}"
        return f"{self.texts} texts of {self.tokens} tokens a request, concurrency {self.connections}"


@dataclass
class Bench:
    """The state of a run."""

    size: Size
    engines: Engines
    report: Report

    @cached_property
    def texts(self) -> Texts:
        return Texts(self.engines.variant())

    @cached_property
    def config(self) -> dict[str, Any]:
        return load_json(self.engines.variant() / CONFIG)

    @cached_property
    def prefix(self) -> int:
        """Tokens of the prefix that every text gets."""
        tokenizer = Tokenizer.from_file(str(self.engines.variant() / TOKENIZER))
        [[text]] = self.texts.lists("prefix", 1, 1, 8)
        return len(tokenizer.encode(V4.prefixes["query"] + text, add_special_tokens=False)) - 8


async def throughput(
    bench: Bench,
    outcome: Outcome,
    shapes: Sequence[Shape],
    compared: Sequence[System],
    scale: Scale | None = None,
) -> None:
    """Measure systems side by side; one row for each shape and system."""
    for shape in shapes:
        load = Load(shape.name, shape.connections, shape.tokens - bench.prefix, shape.texts, "base64")
        for row in await side_by_side(scale or bench.size.scale, load, compared, bench.texts):
            rates = [shape.tokens * rate for rate in row.items_per_second]
            row.figures[TOKENS] = rates
            # The vision tower's operations are not counted.
            if shape.of == "texts" and (peak := figure(bench.report, PEAK)):
                of_token = flops_per_token(bench.config, shape.tokens) / 1e12
                row.figures[SHARE] = [100 * rate * of_token / peak for rate in rates]
            outcome.rows.append(row)


def rate_of(outcome: Outcome, shape: Shape, system: System) -> float:
    """The median tokens a second of a system."""
    [row] = [row for row in outcome.rows if (row.load, row.system) == (shape.name, system.name)]
    return float(np.median(row.figures[TOKENS]))


async def query_rate(bench: Bench, system: System) -> float:
    """Queries a second, Poisson arrivals, of which 99 % are answered within 50 ms and none fails."""
    words, seconds = QUERY_TOKENS - bench.prefix, bench.size.scale.seconds

    async def holds(rate: float) -> bool:
        moments = poisson(rate, seconds, seed=round(rate))
        lists = bench.texts.lists(f"queries at {rate}", len(moments), 1, words)
        requests = [Request(number, system.make(texts)) for number, texts in enumerate(lists)]
        replies = await open_loop(system.url, requests, moments, QUERY_PATIENCE)
        late = sum(not reply.good or reply.end - reply.due > QUERY_P99_SECONDS for reply in replies)
        return all(reply.good for reply in replies) and late <= 0.01 * len(replies)

    return await highest(holds, bench.size.queries)


async def highest(holds: Callable[[float], Awaitable[bool]], start: float) -> float:
    """The highest rate tried that holds, 0 if no rate does: doubles or halves `start`, then bisects."""
    good, bad, rate = 0.0, math.inf, start
    for _ in range(SEARCH_STEPS):
        if await holds(rate):
            good = rate
        else:
            bad = rate
        rate = min(good * 2, math.sqrt(good * bad)) if good else bad / 2
    return good


async def ask(server: Server, items: Sequence[contract.Item]) -> Sequence[Vector]:
    """A worker's vectors, in the order of the items; multi-vectors are flat. `RuntimeError` if one failed."""
    body = contract.encode_request(contract.EncodeRequest(list(items)))
    request = Request(0, post(server.url + contract.ENCODE_PATH, body), len(items), read_frames)
    reply = await Connection(server.url, ASK_SECONDS).ask(request, 0.0)
    if len(reply.vectors) < len(items) or not all(map(len, reply.vectors)):
        raise RuntimeError(f"status {reply.status}, {len(reply.vectors)} of {len(items)} vectors")
    return reply.vectors


def least_cosine(vectors: Sequence[Vector], references: Sequence[Vector]) -> float:
    """The least cosine of vectors, or of rows of multi-vectors, with their references."""
    least = 1.0
    for vector, other in zip(vectors, references, strict=True):
        one = vector.reshape(other.shape).astype(np.float64)
        norms = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
        least = min(least, float(((one * other).sum(-1) / norms).min()))
    return least
