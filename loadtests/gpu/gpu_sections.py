"""The sections of a run. Each adds rows and figures to its outcome as soon as it has them."""

import asyncio
import base64
import itertools
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import NamedTuple

import httpx
import numpy as np
import orjson

from triptych.deploy.common.gpu_memory import weights_gib
from triptych.loadtests.bench import systems
from triptych.loadtests.bench.loops import Vector, post
from triptych.loadtests.bench.systems import System
from triptych.loadtests.content.pictures import image
from triptych.loadtests.gpu import card
from triptych.loadtests.gpu.gpu_engines import EAGER, FIXTURE, FIXTURES, FP8, STOCK, TOKEN_LEVEL, child
from triptych.loadtests.gpu.gpu_report import PEAK, QUERIES, THROUGH_ROUTER, TIMES_RECIPE, Outcome
from triptych.loadtests.gpu.gpu_runs import (
    Bench,
    Shape,
    ask,
    least_cosine,
    query_rate,
    rate_of,
    throughput,
)
from triptych.loadtests.server_processes import Server
from triptych.workers.checkpoints.variant import read_variant
from triptych.workers.shared.contract import METRICS_PATH, POOLS, Image, Item, PoolName, Text

RETRIEVAL: PoolName = "retrieval"
TASKS = ("retrieval.query", "text-matching", "code.query")
IMAGES = 32
# Texts of one request.
LIST = 32
SHORT = 512
RECIPE_CONNECTIONS, RECIPE_TOKENS = 8, 4096
PARITY_TEXTS, PARITY_TOKENS = 6, 200
# Quantized values move far more than rounded ones.
FP8_TOLERANCE = 0.05
MODEL = "jina-embeddings-v4"
PIXELS_PER_TOKEN = 28**2
RESIDENT = "triptych_worker_resident_memory_bytes"


async def matmul(bench: Bench, outcome: Outcome) -> None:
    outcome.figures[PEAK] = float(await child("triptych.loadtests.gpu.matmul"))


async def checkpoint(bench: Bench, outcome: Outcome) -> None:
    await bench.engines.write_checkpoints()
    outcome.figures["weights of a variant, GiB"] = (
        weights_gib(str(bench.engines.variant()), "retrieval") or 0.0
    )


async def memory(bench: Bench, outcome: Outcome) -> None:
    """An engine without CUDA graphs, then one with them. The card is free, as no section before has any."""
    before, used = card.used_gib(), {}
    for name in (EAGER, RETRIEVAL):
        began = time.monotonic()
        [worker] = await bench.engines.need(name)
        outcome.figures[f"{name}: start, s"] = time.monotonic() - began
        outcome.figures[f"{name}: memory of the host, GiB"] = await _resident_gib(worker)
        used[name] = card.used_gib()
    with_graphs, without = used[RETRIEVAL], used[EAGER]
    if before is None or with_graphs is None or without is None:
        return
    weights, cache = weights_gib(str(bench.engines.variant()), "retrieval") or 0.0, bench.size.kv_cache_gib
    outcome.figures |= {
        "card: all of one engine, GiB": with_graphs - before,
        "card: weights, GiB": weights,
        "card: key-value cache, GiB": cache,
        "card: CUDA graphs, GiB": with_graphs - without,
        "card: activations and CUDA context, GiB": without - before - weights - cache,
    }


async def parity(bench: Bench, outcome: Outcome) -> None:
    """The engine at full size against transformers in float32, with the same weights."""
    [worker] = await bench.engines.need(RETRIEVAL)
    lists = bench.texts.lists("parity", PARITY_TEXTS, 1, PARITY_TOKENS)
    texts, folder = [text for [text] in lists], bench.engines.folder
    (folder / "texts.json").write_text(json.dumps(texts))
    (folder / "image.png").write_bytes(picture := image("parity", 0, *bench.size.image, "png"))
    files = [str(folder / name) for name in ("texts.json", "image.png", "own-code.npy")]
    vectors = await ask(worker, [*(Item(Text(text, "query")) for text in texts), Item(Image(picture))])
    await child("triptych.loadtests.gpu.own_code", str(bench.engines.variant()), *files)
    references = np.load(files[-1])
    outcome.figures["texts, least cosine"] = least_cosine(vectors[:-1], references[:-1])
    outcome.figures["image, cosine"] = least_cosine(vectors[-1:], references[-1:])
    apart = least_cosine(references[:1], references[1:2])
    outcome.figures["two texts, cosine with each other"] = apart


async def fixture(bench: Bench, outcome: Outcome, name: str) -> None:
    """An engine against what the model's own published code gave: `tests/data/upstream-tiny`."""
    [worker] = await bench.engines.need(name)
    with np.load(FIXTURE / "reference.npz") as arrays:
        reference = dict(arrays)
    texts = json.loads((FIXTURE / "reference_texts.json").read_text())
    kinds: dict[str, list[tuple[Item, Vector]]] = {}
    for key, vector in reference.items():
        # text/retrieval/query/0/dense, image/retrieval/0/multi
        kind, pool, *role, number, form = key.split("/")
        if pool == RETRIEVAL and form in ("dense", "multi"):
            file = FIXTURE / f"reference_image_{number}.png"
            content = Text(texts[int(number)], *role) if role else Image(file.read_bytes())
            pair = Item(content, multivector=form == "multi"), vector
            kinds.setdefault(f"{kind}, {form}", []).append(pair)
    for title, pairs in kinds.items():
        items, references = zip(*pairs, strict=True)
        outcome.figures[f"{title}: least cosine of {len(pairs)}"] = least_cosine(
            await ask(worker, items), references
        )


async def short(bench: Bench, outcome: Outcome) -> None:
    """Texts of a few hundred tokens, and lists of queries."""
    [worker] = await bench.engines.need(RETRIEVAL)
    ours = await _ours(bench, worker)
    lists = Shape(20, max(1, bench.size.texts[20] // LIST), texts=LIST)
    await throughput(bench, outcome, [*_shapes(bench), lists], [systems.worker(worker), ours])
    for shape in _shapes(bench):
        outcome.figures[THROUGH_ROUTER.format(shape.tokens)] = rate_of(outcome, shape, ours)


async def long(bench: Bench, outcome: Outcome) -> None:
    """Texts of thousands of tokens."""
    [worker] = await bench.engines.need(RETRIEVAL)
    await throughput(bench, outcome, _shapes(bench, long=True), [await _ours(bench, worker)])


async def media(bench: Bench, outcome: Outcome) -> None:
    """Images, and a vector for each token. Without other systems: stock vLLM has no projector for these."""
    [worker] = await bench.engines.need(RETRIEVAL)
    router, size = await bench.engines.router((RETRIEVAL, worker)), bench.size
    ours = systems.routed(router, worker, "base64")
    pictures = [image("media", serial, *size.image, "jpeg") for serial in range(IMAGES)]
    images = itertools.cycle([base64.b64encode(picture).decode() for picture in pictures])

    def call(**fields: object) -> bytes:
        body = {"model": MODEL, "task": TASKS[0], "embedding_type": "base64", **fields}
        return post(f"{router.url}/v1/embeddings", orjson.dumps(body))

    def ask_image(texts: Sequence[str]) -> bytes:
        return call(input=[{"image": next(images)}])

    def ask_multi(texts: Sequence[str]) -> bytes:
        return call(input=texts, return_multivector=True)

    def read_multi(body: bytes) -> list[Vector]:
        vectors = [vector for entry in orjson.loads(body)["data"] for vector in entry["embeddings"]]
        return [np.frombuffer(base64.b64decode(vector), "<f4") for vector in vectors]

    longest, (width, height) = _shapes(bench)[-1], size.image
    image_shape = longest._replace(tokens=width * height // PIXELS_PER_TOKEN, of="images")
    await throughput(bench, outcome, [image_shape], [ours._replace(make=ask_image)])
    multi = ours._replace(name=f"{ours.name}, multi-vectors", make=ask_multi, read=read_multi)
    await throughput(bench, outcome, [longest], [multi])


async def queries(bench: Bench, outcome: Outcome) -> None:
    """The highest rate of queries that are answered in time."""
    [worker] = await bench.engines.need(RETRIEVAL)
    outcome.figures[QUERIES] = await query_rate(bench, await _ours(bench, worker))


async def stock(bench: Bench, outcome: Outcome) -> None:
    """vLLM's own server, which takes the mean itself."""
    worker, server = await bench.engines.need(RETRIEVAL, STOCK)
    ours, other = await _ours(bench, worker), systems.stock(server, "base64")
    await throughput(bench, outcome, _shapes(bench), [other, ours])
    for shape in _shapes(bench):
        times = rate_of(outcome, shape, ours) / rate_of(outcome, shape, other)
        outcome.figures[f"{shape.tokens}-token texts, times stock vLLM"] = times
    outcome.figures["30-token queries/s at p99 <= 50 ms, stock vLLM"] = await query_rate(bench, other)


async def recipe(bench: Bench, outcome: Outcome) -> None:
    """The published recipe: a vector for each token as JSON, of which the client takes the mean."""
    worker, server = await bench.engines.need(RETRIEVAL, TOKEN_LEVEL)
    dimensions = read_variant(bench.engines.variant()).dimensions
    ours, other = await _ours(bench, worker), systems.recipe(server, "float", dimensions)
    for shape in _shapes(bench)[::2]:
        # A text of 512 tokens is 10 MB of JSON. More at a time would only wait for each other.
        most = max(RECIPE_CONNECTIONS, RECIPE_TOKENS // shape.tokens)
        few = shape._replace(connections=min(shape.connections, most))
        await throughput(bench, outcome, [few], [other, systems.recipe(server, "base64", dimensions)])
        await throughput(bench, outcome, [shape], [ours])
        times = rate_of(outcome, shape, ours) / rate_of(outcome, few, other)
        outcome.figures[TIMES_RECIPE.format(shape.tokens)] = times


async def three(bench: Bench, outcome: Outcome) -> None:
    """Three engines on the card, and requests of three tasks in turn."""
    workers = await bench.engines.need(*POOLS)
    if (used := card.used_gib()) is not None:
        outcome.figures["card: all of three engines, GiB"] = used
    router = await bench.engines.router(*zip(POOLS, workers, strict=True))
    tasks = itertools.cycle(TASKS)

    def ask_next(texts: Sequence[str]) -> bytes:
        return systems.ask_router(router.url, texts, "base64", next(tasks))

    processes: dict[str, Server] = {"router": router, **dict(zip(POOLS, workers, strict=True))}
    mixed = System("(d) router, three workers", processes, router.url, ask_next, systems.read_embeddings)
    await throughput(bench, outcome, _shapes(bench), [mixed])


async def fp8(bench: Bench, outcome: Outcome) -> None:
    """Weights quantized to fp8 while they are loaded, against bfloat16."""
    worker, quantized = await bench.engines.need(RETRIEVAL, FP8)
    items = [Item(Text(text, "query")) for [text] in bench.texts.lists("fp8", 32, 1, PARITY_TOKENS)]
    outcome.figures["fp8: least cosine"] = least_cosine(await ask(quantized, items), await ask(worker, items))
    scale = bench.size.scale._replace(tolerance=FP8_TOLERANCE)
    compared = [systems.worker(worker), systems.worker(quantized)._replace(name="(c) worker, fp8")]
    await throughput(bench, outcome, _shapes(bench)[-1:], compared, scale)


def _shapes(bench: Bench, *, long: bool = False) -> list[Shape]:
    """The texts of up to `SHORT` tokens, or the longer ones."""
    return [Shape(*pair) for pair in bench.size.texts.items() if (pair[0] > SHORT) == long]


async def _ours(bench: Bench, worker: Server) -> System:
    """A router in front of a worker of the pool `retrieval`."""
    return systems.routed(await bench.engines.router((RETRIEVAL, worker)), worker, "base64")


async def _resident_gib(worker: Server) -> float:
    """Memory of the worker and its engine process, as the worker reports it."""
    page = (await asyncio.to_thread(httpx.get, worker.url + METRICS_PATH)).raise_for_status().text
    [sample] = [line for line in page.splitlines() if line.startswith(f"{RESIDENT} ")]
    return float(sample.split()[1]) / 2**30


class Section(NamedTuple):
    """One part of a run."""

    title: str
    run: Callable[[Bench, Outcome], Awaitable[None]]


SECTIONS = {
    "matmul": Section("What the card can do", matmul),
    "checkpoint": Section("Random checkpoint, written and merged for three tasks", checkpoint),
    "memory": Section("One engine: start, and memory by part", memory),
    "parity": Section("Vectors against the model's own code, same size", parity),
    "short": Section("Throughput of short texts, one engine", short),
    "queries": Section("Queries in time, one engine", queries),
    "stock": Section("Against stock vLLM on the same card", stock),
    "recipe": Section("Against the published recipe on the same card", recipe),
    "long": Section("Throughput of long texts, one engine", long),
    "media": Section("Images and multi-vectors, one engine", media),
    "fp8": Section("fp8", fp8),
    "three": Section("Three engines on the card, three tasks mixed", three),
    **{
        name: Section(f"The published code's reference vectors, {dtype}", partial(fixture, name=name))
        for name, dtype in FIXTURES.items()
    },
}
