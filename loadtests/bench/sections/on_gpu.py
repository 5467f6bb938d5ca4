"""What is measured on a GPU. Without one, the same code runs on a small model, for tests."""

import asyncio
import base64
import itertools
import json
import os
import time
from collections.abc import Sequence

import httpx
import numpy as np
import orjson

from triptych.deploy.common.gpu_memory import weights_gib
from triptych.loadtests.bench import card, systems
from triptych.loadtests.bench.loops import Vector, post
from triptych.loadtests.bench.measure import Bench, Result
from triptych.loadtests.bench.sections.compared import RETRIEVAL, Load
from triptych.loadtests.bench.sections.gpu_figures import (
    PEAK,
    ask,
    least_cosine,
    load_of,
    query_rate,
    throughput,
)
from triptych.loadtests.bench.servers import FIXTURE, SIZES, Engine, SizeName, child
from triptych.loadtests.bench.systems import System
from triptych.loadtests.content.pictures import image
from triptych.loadtests.server_processes import Server
from triptych.workers.checkpoints.variant import read_variant
from triptych.workers.shared.contract import METRICS_PATH, POOLS, Image, Item, PoolName, Text
from triptych.workers.shared.families import V4

THROUGH_ROUTER = "{}-token texts through router and HTTP, tokens a second"
TIMES_RECIPE = "{}-token texts, times the recipe with JSON"
QUERIES = "30-token queries a second at p99 <= 50 ms, router and worker"
TASKS = ("retrieval.query", "text-matching", "code.query")
IMAGES = 32
# Texts of one request.
LIST = 32
SHORT = 512
RECIPE_CONNECTIONS, RECIPE_TOKENS = 8, 4096
PARITY_TEXTS, PARITY_TOKENS, PARITY_SECONDS = 6, 200, 120.0
# Quantized values move far more than rounded ones.
FP8_TOLERANCE = 0.05
PIXELS_PER_TOKEN = 28**2
RESIDENT = "triptych_worker_resident_memory_bytes"
EAGER, FP8 = ("enforce_eager", True), ("quantization", "fp8")
# In front of a card one router process is the limit for short texts.
ROUTER_PROCESSES = max(1, min(4, (os.cpu_count() or 1) // 4))
# By the model's size: the connections for each number of tokens, and the first rate of queries to try.
TEXTS: dict[SizeName, dict[int, int]] = {
    "full": {20: 512, 128: 256, 512: 128, 4096: 32, 32_768: 8},
    "nano": {20: 8, 128: 4, 600: 2},
}
FIRST_RATE: dict[SizeName, float] = {"full": 1000, "nano": 20}
# The first has 768 tokens, the most.
PIXELS: dict[SizeName, tuple[int, int]] = {"full": (896, 672), "nano": (112, 84)}


async def matmul(bench: Bench, result: Result) -> None:
    result.figures[PEAK] = float(await child("triptych.loadtests.bench.matmul"))


async def checkpoint(bench: Bench, result: Result) -> None:
    await asyncio.gather(*(bench.servers.variant(bench.size, pool) for pool in POOLS))
    result.figures["weights of a variant, GiB"] = await _weights(bench)


async def memory(bench: Bench, result: Result) -> None:
    """An engine without CUDA graphs, then one with them. The card is free, as no section before has any."""
    used = [card.used_gib()]
    for name, setting in (("eager", EAGER), ("retrieval", None)):
        began = time.monotonic()
        [worker] = await bench.servers.need(Engine(size=bench.size, setting=setting))
        result.figures[f"{name}: start, s"] = time.monotonic() - began
        page = (await asyncio.to_thread(httpx.get, worker.url + METRICS_PATH)).raise_for_status().text
        [sample] = [line for line in page.splitlines() if line.startswith(f"{RESIDENT} ")]
        # Of the worker and its engine process.
        result.figures[f"{name}: memory of the host, GiB"] = float(sample.split()[1]) / 2**30
        used.append(card.used_gib())
    if not card.name():
        return
    before, without, with_graphs = used
    weights, cache = await _weights(bench), SIZES[bench.size].kv_cache_gib
    result.figures |= {
        "card: all of one engine, GiB": with_graphs - before,
        "card: weights, GiB": weights,
        "card: key-value cache, GiB": cache,
        "card: CUDA graphs, GiB": with_graphs - without,
        "card: activations and CUDA context, GiB": without - before - weights - cache,
    }


async def parity(bench: Bench, result: Result) -> None:
    """The engine at full size against transformers in float32, with the same weights."""
    [worker] = await bench.servers.need(Engine(size=bench.size))
    lists = (await bench.servers.texts(bench.size))("parity", PARITY_TEXTS, 1, PARITY_TOKENS)
    picture = image("parity", 0, *PIXELS[bench.size], "png")
    vectors = await ask(worker, [*(Item(Text(text, "query")) for [text] in lists), Item(Image(picture))])
    own = await bench.servers.own_code(await bench.servers.variant(bench.size))
    bodies = [*(("/", orjson.dumps(one)) for one in lists), ("/image", picture)]
    async with httpx.AsyncClient(base_url=own.url, timeout=PARITY_SECONDS) as client:
        replies = [(await client.post(path, content=body)).raise_for_status() for path, body in bodies]
    references = [np.frombuffer(reply.content, "<f4") for reply in replies]
    result.figures["texts, least cosine"] = least_cosine(vectors[:-1], references[:-1])
    result.figures["image, cosine"] = least_cosine(vectors[-1:], references[-1:])
    result.figures["two texts, cosine with each other"] = least_cosine(references[:1], references[1:2])


async def fixture(bench: Bench, result: Result, size: SizeName) -> None:
    """An engine against what the model's own published code gave: `tests/data/upstream-tiny`."""
    [worker] = await bench.servers.need(Engine(size=size, setting=EAGER))
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
        result.figures[f"{title}: least cosine of {len(pairs)}"] = least_cosine(
            await ask(worker, items), references
        )


async def short(bench: Bench, result: Result) -> None:
    """Texts of a few hundred tokens, and lists of queries."""
    ours, [worker] = await _ours(bench)
    lists = load_of(20, max(1, TEXTS[bench.size][20] // LIST), LIST)
    loads = _loads(bench)
    rates = await throughput(bench, result, [*loads.values(), lists], [systems.worker(worker), ours])
    for tokens, load in loads.items():
        result.figures[THROUGH_ROUTER.format(tokens)] = rates[load, ours.name]


async def long(bench: Bench, result: Result) -> None:
    """Texts of thousands of tokens."""
    ours, _ = await _ours(bench)
    await throughput(bench, result, _loads(bench, long=True).values(), [ours])


async def media(bench: Bench, result: Result) -> None:
    """Images, and a vector for each token. Without other systems: stock vLLM has no projector for these."""
    ours, _ = await _ours(bench)
    width, height = PIXELS[bench.size]
    pictures = [image("media", serial, width, height, "jpeg") for serial in range(IMAGES)]
    images = itertools.cycle([base64.b64encode(picture).decode() for picture in pictures])

    def call(**fields: object) -> bytes:
        body = {"model": V4.name, "task": TASKS[0], "embedding_type": "base64", **fields}
        return post(f"{ours.url}/v1/embeddings", orjson.dumps(body))

    def ask_image(texts: Sequence[str]) -> bytes:
        return call(input=[{"image": next(images)}])

    def ask_multi(texts: Sequence[str]) -> bytes:
        return call(input=texts, return_multivector=True)

    def read_multi(body: bytes) -> list[Vector]:
        vectors = [vector for entry in orjson.loads(body)["data"] for vector in entry["embeddings"]]
        return [np.frombuffer(base64.b64decode(vector), "<f4") for vector in vectors]

    [*_, longest] = _loads(bench).values()
    images_load = load_of(width * height // PIXELS_PER_TOKEN, longest.concurrency, of="images")
    await throughput(bench, result, [images_load], [ours._replace(make=ask_image)])
    multi = ours._replace(name=f"{ours.name}, multi-vectors", make=ask_multi, read=read_multi)
    await throughput(bench, result, [longest], [multi])


async def queries(bench: Bench, result: Result) -> None:
    """The highest rate of queries that are answered in time."""
    ours, _ = await _ours(bench)
    result.figures[QUERIES] = await query_rate(bench, ours, FIRST_RATE[bench.size])


async def stock(bench: Bench, result: Result) -> None:
    """vLLM's own server, which takes the mean itself."""
    ours, [_, server] = await _ours(bench, Engine("stock", bench.size))
    other, loads = systems.stock(server, "base64"), _loads(bench)
    rates = await throughput(bench, result, loads.values(), [other, ours])
    for tokens, load in loads.items():
        name = f"{tokens}-token texts, times stock vLLM"
        result.figures[name] = rates[load, ours.name] / rates[load, other.name]
    rate = await query_rate(bench, other, FIRST_RATE[bench.size])
    result.figures["30-token queries/s at p99 <= 50 ms, stock vLLM"] = rate


async def recipe(bench: Bench, result: Result) -> None:
    """The published recipe: a vector for each token as JSON, of which the client takes the mean."""
    ours, [_, server] = await _ours(bench, Engine("token-level stock", bench.size))
    dimensions = read_variant(await bench.servers.variant(bench.size)).dimensions
    other = systems.recipe(server, "float", dimensions)
    for tokens, load in list(_loads(bench).items())[::2]:
        # A text of 512 tokens is 10 MB of JSON. More at a time would only wait for each other.
        most = max(RECIPE_CONNECTIONS, RECIPE_TOKENS // tokens)
        few = load_of(tokens, min(load.concurrency, most))
        rates = await throughput(bench, result, [few], [other, systems.recipe(server, "base64", dimensions)])
        rates |= await throughput(bench, result, [load], [ours])
        result.figures[TIMES_RECIPE.format(tokens)] = rates[load, ours.name] / rates[few, other.name]


async def tasks_mixed(bench: Bench, result: Result, pools: Sequence[PoolName]) -> None:
    """An engine for each of `pools` on the card, and requests of three tasks in turn."""
    workers = await bench.servers.need(*(Engine(size=bench.size, pool=pool) for pool in pools))
    if card.name():
        result.figures["card: all engines, GiB"] = card.used_gib()
    by_pool = dict(zip(pools, workers, strict=True))
    router = await bench.servers.router(*by_pool.items(), processes=ROUTER_PROCESSES)
    tasks = itertools.cycle(TASKS)

    def ask_next(texts: Sequence[str]) -> bytes:
        return systems.ask_router(router.url, texts, "base64", next(tasks))

    processes: dict[str, Server] = {"router": router, **by_pool}
    mixed = System("(d) router, workers", processes, router.url, ask_next, systems.read_embeddings)
    await throughput(bench, result, _loads(bench).values(), [mixed])


async def fp8(bench: Bench, result: Result) -> None:
    """Weights quantized to fp8 while they are loaded, against bfloat16."""
    size = bench.size
    worker, quantized = await bench.servers.need(Engine(size=size), Engine(size=size, setting=FP8))
    lists = (await bench.servers.texts(size))("fp8", 32, 1, PARITY_TOKENS)
    items = [Item(Text(text, "query")) for [text] in lists]
    result.figures["fp8: least cosine"] = least_cosine(await ask(quantized, items), await ask(worker, items))
    bench = bench._replace(scale=bench.scale._replace(tolerance=FP8_TOLERANCE))
    compared = [systems.worker(worker), systems.worker(quantized)._replace(name="(c) worker, fp8")]
    [*_, longest] = _loads(bench).values()
    await throughput(bench, result, [longest], compared)


def _loads(bench: Bench, *, long: bool = False) -> dict[int, Load]:
    """Texts of up to `SHORT` tokens, or the longer ones, by tokens."""
    texts = TEXTS[bench.size].items()
    return {tokens: load_of(tokens, count) for tokens, count in texts if (tokens > SHORT) == long}


async def _weights(bench: Bench) -> float:
    return weights_gib(str(await bench.servers.variant(bench.size)), RETRIEVAL) or 0.0


async def _ours(bench: Bench, *others: Engine) -> tuple[System, list[Server]]:
    """Our router and worker; the servers of the worker and of `others`."""
    servers = await bench.servers.need(Engine(size=bench.size), *others)
    router = await bench.servers.router((RETRIEVAL, servers[0]), processes=ROUTER_PROCESSES)
    return systems.routed(router, servers[0], "base64"), servers
