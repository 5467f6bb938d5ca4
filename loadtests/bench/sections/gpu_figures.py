"""What is measured on a GPU: tokens a second by length, the highest rate of queries, single vectors."""

import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from triptych.loadtests.bench.loops import Connection, Request, Vector, open_loop, poisson, post
from triptych.loadtests.bench.measure import Bench, Result
from triptych.loadtests.bench.sections.compared import Load, side_by_side
from triptych.loadtests.bench.sections.emulated import PREFIX_TOKENS
from triptych.loadtests.bench.systems import System, read_frames
from triptych.loadtests.server_processes import Server
from triptych.workers.checkpoints.folders import load_json
from triptych.workers.checkpoints.layout import CONFIG
from triptych.workers.shared import contract

TOKENS, SHARE = "tokens a second", "share of the measured peak, %"
"""Names in `Row.figures`."""
PEAK = "matrix product, TFLOP/s"
QUERY_TOKENS, QUERY_P99_SECONDS = 30, 0.05
# A query without an answer for so long counts as failed.
QUERY_PATIENCE = 2.0
SEARCH_STEPS = 8
ASK_SECONDS = 60.0


def load_of(tokens: int, connections: int, texts: int = 1, of: str = "texts") -> Load:
    """Texts of `tokens` tokens, prefix included; `texts` of them a request. Or images."""
    what = f"{tokens:,}-token {of}" if texts == 1 else f"{texts} texts of {tokens} tokens a request"
    return Load(f"{what}, concurrency {connections}", connections, tokens - PREFIX_TOKENS, texts)


async def throughput(
    bench: Bench, result: Result, loads: Iterable[Load], compared: Sequence[System]
) -> dict[tuple[Load, str], float]:
    """Measure systems side by side, one row for each load and system; their median tokens a second."""
    found: dict[tuple[Load, str], float] = {}
    texts = await bench.servers.texts(bench.size)
    config = load_json(await bench.servers.variant(bench.size) / CONFIG)
    peak = next((one.figures[PEAK] for one in bench.report.values() if PEAK in one.figures), None)
    for load in loads:
        tokens = load.tokens + PREFIX_TOKENS
        for row in await side_by_side(bench.scale, load, compared, texts):
            row.figures[TOKENS] = rates = [tokens * rate for rate in row.items_per_second]
            found[load, row.system] = median(rates)
            # The vision tower's operations are not counted.
            if peak and "images" not in load.name:
                of_token = flops_per_token(config, tokens) / 1e12
                row.figures[SHARE] = [100 * rate * of_token / peak for rate in rates]
            result.rows.append(row)
    return found


def flops_per_token(config: Mapping[str, Any], tokens: int) -> float:
    """Operations of one token in a text of `tokens` tokens: 2 W + 2 L H n.

    W weights are in the matrices of the L text layers, H values in the hidden state, n tokens in the text.
    Embeddings, norms, projector and vision tower are left out.
    Each weight is multiplied and added once. Attention is causal, so a token meets n / 2 others on average.
    For each it multiplies and adds H values with the keys and H with the values: 4 H n / 2 a layer.
    """
    hidden, inner, layers = (
        config[name] for name in ("hidden_size", "intermediate_size", "num_hidden_layers")
    )
    keys = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    weights = layers * (2 * hidden * hidden + 2 * hidden * keys + 3 * hidden * inner)
    return float(2 * weights + 2 * layers * hidden * tokens)


async def query_rate(bench: Bench, system: System, start: float) -> float:
    """Queries a second, Poisson arrivals, of which 99 % are answered within 50 ms and none fails."""
    texts, words = await bench.servers.texts(bench.size), QUERY_TOKENS - PREFIX_TOKENS

    async def holds(rate: float) -> bool:
        moments = poisson(rate, bench.scale.seconds, seed=round(rate))
        lists = texts(f"queries at {rate}", len(moments), 1, words)
        requests = [Request(number, system.make(one)) for number, one in enumerate(lists)]
        replies = await open_loop(system.url, requests, moments, QUERY_PATIENCE)
        late = sum(not reply.good or reply.seconds > QUERY_P99_SECONDS for reply in replies)
        return all(reply.good for reply in replies) and late <= 0.01 * len(replies)

    return await highest(holds, start)


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
    """The least cosine of vectors, or of rows of multi-vectors, with their references.

    Raises `ValueError` for a vector that is zero or not finite.
    """
    least = 1.0
    for vector, other in zip(vectors, references, strict=True):
        one = vector.reshape(other.shape).astype(np.float64)
        norms = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
        if not (np.isfinite(norms) & (norms > 0)).all():
            raise ValueError("a vector is zero or not finite")
        least = min(least, float(((one * other).sum(-1) / norms).min()))
    return least
