"""In-engine pooling against the published recipe: token-level output, averaged by the caller.

    python -m loadtests.bench.pooling CHECKPOINT [--rounds 5]

Side by side on this machine, from one merged variant and through HTTP: our worker (the mean leaves the
engine), and vLLM's OpenAI server with `token_embed` (every token's hidden state leaves the server and the
caller averages), once with its default JSON floats and once with its leanest form, base64 float32.
Every way is sent the same token counts at the same concurrency; rounds are interleaved; every vector is
compared with the same text's from the other ways. Printed: texts a second (median and range), ratios of
the medians, and the failures.
"""

import argparse
import asyncio
import base64
import json
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import orjson
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tqdm import tqdm

from loadtests.bench.stock import stock_copy
from loadtests.processes import StockServer, Worker
from workers.checkpoints.variant import read_variant
from workers.contract import ENCODE_PATH, EncodeRequest, Failure, FrameReader, Item, Text, encode_request

Vector = NDArray[np.float32]
Encode = Callable[[aiohttp.ClientSession, str], Awaitable[Vector]]
# Length in tokens, and how many texts make a round.
LOADS = {"845-token texts": (845, 192), "20-token texts": (20, 1024)}
CONCURRENCY = 16
# vLLM's processes on a CPU spin for a second after their last step; the next way must not pay for it.
SETTLE_SECONDS = 1.5
# Largest difference that a value of a unit vector may have between two ways, in float32.
TOLERANCE = 1e-5


def worker_way(url: str) -> Encode:
    async def encode(session: aiohttp.ClientSession, text: str) -> Vector:
        body = encode_request(EncodeRequest([Item(Text(text, "query"))]))
        async with session.post(url + ENCODE_PATH, data=body) as reply:
            reply.raise_for_status()
            [frame] = FrameReader().feed(await reply.read())
        if isinstance(frame, Failure):
            raise RuntimeError(frame.message)
        return np.frombuffer(frame.data, "<f4")

    return encode


def recipe_way(url: str, encoding: str, decode: Callable[[Any], Vector]) -> Encode:
    async def encode(session: aiohttp.ClientSession, text: str) -> Vector:
        body: dict[str, Any] = {"model": "stock", "input": f"Query: {text}", "encoding_format": encoding}
        body |= {"task": "token_embed", "use_activation": False, "add_special_tokens": False}
        async with session.post(url + "/pooling", json=body) as reply:
            reply.raise_for_status()
            data = orjson.loads(await reply.read())["data"][0]["data"]
        mean = decode(data).mean(axis=0)
        unit: Vector = mean / np.linalg.norm(mean)
        return unit

    return encode


async def run_round(encode: Encode, texts: list[str]) -> tuple[float, list[Vector | BaseException]]:
    """Texts a second at `CONCURRENCY`, and each text's vector or what went wrong."""
    gate = asyncio.Semaphore(CONCURRENCY)
    timeout = aiohttp.ClientTimeout(total=600)
    async with aiohttp.ClientSession(timeout=timeout) as session:

        async def one(text: str) -> Vector:
            async with gate:
                return await encode(session, text)

        begin = time.perf_counter()
        results = await asyncio.gather(*map(one, texts), return_exceptions=True)
        return len(texts) / (time.perf_counter() - begin), list(results)


async def compare(ways: dict[str, Encode], words: list[str], rounds: int) -> list[dict[str, Any]]:
    """One row per load; its first round warms up and is not counted."""
    draw = random.Random(4)
    rows = []
    for load, (length, count) in LOADS.items():
        rates: dict[str, list[float]] = {way: [] for way in ways}
        failures = dict.fromkeys(ways, 0)
        for number in tqdm(range(rounds + 1), desc=load, unit="round"):
            texts = ["".join(draw.choices(words, k=length)) for _ in range(count)]
            reference = None
            for way, encode in ways.items():
                await asyncio.sleep(SETTLE_SECONDS)
                rate, results = await run_round(encode, texts)
                reference = reference or results
                failures[way] += sum(map(differ, results, reference))
                if number:
                    rates[way].append(rate)
        rows.append({"load": load, "rates": rates, "failures": failures})
    return rows


def differ(one: Vector | BaseException, other: Vector | BaseException) -> bool:
    """Whether either failed, or the two are not the same vector."""
    if isinstance(one, BaseException) or isinstance(other, BaseException):
        return True
    return one.shape != other.shape or not np.abs(one - other).max() < TOLERANCE


def single_token_words(tokenizer: Tokenizer, count: int = 400) -> list[str]:
    """Words of which any sequence has as many tokens as words."""
    words = [f" {word}" for word in ("the", "of", "and", "a", "in", "to", "is", "be", "on", "an")]
    vocabulary = tokenizer.get_vocab(with_added_tokens=False)
    words += [tokenizer.decode([number]) for number in sorted(vocabulary.values())]
    single = [word for word in words if word.startswith(" ") and word[1:].isalpha()]
    return [word for word in single if len(tokenizer.encode(word * 3, add_special_tokens=False)) == 3][:count]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="folder of a merged variant")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write every round's rate to this file")
    options = parser.parse_args()

    variant = read_variant(options.checkpoint)
    words = single_token_words(Tokenizer.from_file(str(options.checkpoint / "tokenizer.json")))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stock = stock_copy(options.checkpoint, folder / "stock")
        worker = Worker(folder / "worker.log", model=options.checkpoint, dtype=variant.dtype, max_tokens=4096)
        server = StockServer(
            folder / "server.log",
            stock,
            *("--dtype", variant.dtype, "--max-model-len", "4096", "--max-num-batched-tokens", "8192"),
            *("--pooler-config", '{"task": "token_embed", "use_activation": false}'),
        )
        try:
            ours, theirs = worker.wait_until_ready().url, server.wait_until_ready().url
            ways = {
                "in-engine": worker_way(ours),
                "token-level, JSON": recipe_way(theirs, "float", lambda data: np.array(data, np.float32)),
                "token-level, base64": recipe_way(
                    theirs,
                    "base64",
                    lambda data: np.frombuffer(base64.b64decode(data), "<f4").reshape(-1, variant.dimensions),
                ),
            }
            rows = asyncio.run(compare(ways, words, options.rounds))
        finally:
            worker.kill()
            server.kill()
    for row in rows:
        medians = {way: statistics.median(rates) for way, rates in row["rates"].items()}
        print(row["load"])
        for way, rates in row["rates"].items():
            ratio = medians["in-engine"] / medians[way]
            print(
                f"  {way:20} {medians[way]:7,.0f}/s ({min(rates):,.0f} to {max(rates):,.0f})  "
                f"in-engine is {ratio:.2f}x  failures {row['failures'][way]}"
            )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
