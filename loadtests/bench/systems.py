"""The systems that are compared, each as a `Way`: how it is asked, and how its replies are read."""

import base64
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson

from loadtests.bench.http import Request, post
from loadtests.bench.load import Read, Stream, Vector
from loadtests.bench.measure import SAMPLE, Groups, Way
from loadtests.processes import Process, Router, StockServer, Worker, free_port
from workers.shared.contract import (
    ENCODE_PATH,
    EncodeRequest,
    Failure,
    FrameReader,
    Item,
    PoolName,
    Text,
    encode_request,
)

Form = Literal["float", "base64"]
Headers = Mapping[str, str]
# What a query of each pool is called in the API; the stock servers are given the same prefix.
TASKS: dict[PoolName, str] = {
    "retrieval": "retrieval.query",
    "text-matching": "text-matching",
    "code": "code.query",
}
PREFIX = "Query: "
EMBEDDINGS = "/v1/embeddings"


class VllmRouter(Process):
    """vLLM's router in Rust (PyPI: vllm-router) in front of stock servers, with its defaults otherwise."""

    def __init__(self, log: Path, servers: Sequence[StockServer]) -> None:
        if importlib.util.find_spec("vllm_router") is None:
            raise SystemExit("vllm-router is not installed; `make dev` does it")
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        argv = ["-m", "vllm_router.launch_router", "--host", "127.0.0.1", "--port", str(port)]
        argv += ["--worker-urls", *(server.url for server in servers), "--policy", "round_robin"]
        argv += ["--prometheus-port", str(free_port()), "--log-level", "warning"]
        super().__init__(argv, {}, log)

    def wait_until_ready(self) -> "VllmRouter":
        self.wait_ready(self.url + "/health")
        return self


def stock(server: StockServer, form: Form = "float") -> Way:
    """(a) The mean is taken by vLLM's own pooler."""
    streams = single(server.url, lambda texts: post(server.url + EMBEDDINGS, stock_body(texts, form)))
    return Way("(a) stock vLLM", {"vLLM": [server]}, streams, READ[form])


def stock_routed(router: VllmRouter, server: StockServer, form: Form = "float") -> Way:
    """(b) The same behind vllm-router."""
    streams = single(router.url, lambda texts: post(router.url + EMBEDDINGS, stock_body(texts, form)))
    processes: Groups = {"vllm-router": [router], "vLLM": [server]}
    return Way("(b) vllm-router, stock vLLM", processes, streams, READ[form])


def worker(server: Worker) -> Way:
    """(c) Our worker, asked as the router asks it."""

    def make(texts: list[str]) -> bytes:
        body = encode_request(EncodeRequest([Item(Text(text, "query")) for text in texts]))
        return post(server.url + ENCODE_PATH, body)

    return Way("(c) worker", {"worker": [server]}, single(server.url, make), read_frames)


def routed(router: Router, server: Worker, form: Form = "float", headers: Headers | None = None) -> Way:
    """(d) Our router and worker."""

    def make(texts: list[str]) -> bytes:
        return post(router.url + EMBEDDINGS, our_body(texts, "retrieval.query", form), headers)

    processes: Groups = {"router": [router], "worker": [server]}
    return Way("(d) router, worker", processes, single(router.url, make), READ[form])


def recipe(server: StockServer, form: Form, dimensions: int) -> Way:
    """(e) The published recipe: every token's hidden state leaves the server, the client averages."""

    def make(texts: list[str]) -> bytes:
        body: dict[str, Any] = {"model": "stock", "input": [PREFIX + text for text in texts]}
        body |= {"encoding_format": form, "task": "token_embed"}
        body |= {"use_activation": False, "add_special_tokens": False}
        return post(server.url + "/pooling", orjson.dumps(body))

    def read(body: bytes) -> list[Vector]:
        means = []
        for entry in orjson.loads(body)["data"]:
            if form == "float":
                states = np.array(entry["data"], np.float32)
            else:
                states = np.frombuffer(base64.b64decode(entry["data"]), "<f4").reshape(-1, dimensions)
            mean = states.mean(axis=0)
            means.append(mean / np.linalg.norm(mean))
        return means

    streams = single(server.url, make, keep_all=True)
    name = {"float": "JSON", "base64": "base64"}[form]
    return Way(f"(e) token-level output, {name}", {"vLLM": [server]}, streams, read, read_all=True)


def stock_pools(servers: Mapping[PoolName, StockServer]) -> Way:
    """(a) with a server for each task; the client knows which to ask."""

    def streams(requests: Sequence[list[str]], concurrency: int) -> list[Stream]:
        made: dict[PoolName, list[Request]] = {pool: [] for pool in servers}
        for number, texts in enumerate(requests):
            pool = pool_of(number)
            data = post(servers[pool].url + EMBEDDINGS, stock_body(texts, "float"))
            made[pool].append(Request(number, data, len(texts), number % SAMPLE == 0))
        share = concurrency // len(servers)
        return [Stream(servers[pool].url, its, share) for pool, its in made.items()]

    return Way("(a) three stock vLLM", {"vLLM": list(servers.values())}, streams, READ["float"])


def routed_pools(router: Router, servers: Sequence[Worker]) -> Way:
    """(d) with a pool for each task behind one router."""

    def streams(requests: Sequence[list[str]], concurrency: int) -> list[Stream]:
        made = [
            Request(
                number,
                post(router.url + EMBEDDINGS, our_body(texts, TASKS[pool_of(number)], "float")),
                len(texts),
                number % SAMPLE == 0,
            )
            for number, texts in enumerate(requests)
        ]
        return [Stream(router.url, made, concurrency)]

    processes: Groups = {"router": [router], "workers": servers}
    return Way("(d) router, three workers", processes, streams, READ["float"])


def pool_of(number: int) -> PoolName:
    """Whose turn it is when the tasks are mixed."""
    return tuple(TASKS)[number % len(TASKS)]


def single(
    url: str, make: Callable[[list[str]], bytes], *, keep_all: bool = False
) -> Callable[[Sequence[list[str]], int], list[Stream]]:
    """All requests to one address."""

    def streams(requests: Sequence[list[str]], concurrency: int) -> list[Stream]:
        made = [
            Request(number, make(texts), len(texts), keep_all or number % SAMPLE == 0)
            for number, texts in enumerate(requests)
        ]
        return [Stream(url, made, concurrency)]

    return streams


def stock_body(texts: Sequence[str], form: Form) -> bytes:
    """For vLLM's `/v1/embeddings`."""
    body: dict[str, Any] = {"model": "stock", "input": [PREFIX + text for text in texts]}
    return orjson.dumps(body | {"encoding_format": form, "add_special_tokens": False})


def our_body(texts: Sequence[str], task: str, form: str) -> bytes:
    """For our `/v1/embeddings`."""
    body = {"model": "jina-embeddings-v4", "task": task, "input": texts, "embedding_type": form}
    return orjson.dumps(body)


def read_floats(body: bytes) -> list[Vector]:
    return [np.array(entry["embedding"], np.float32) for entry in orjson.loads(body)["data"]]


def read_base64(body: bytes) -> list[Vector]:
    return [
        np.frombuffer(base64.b64decode(entry["embedding"]), "<f4") for entry in orjson.loads(body)["data"]
    ]


def read_frames(body: bytes) -> list[Vector]:
    """Vectors in the order of the items; one that failed is empty."""
    frames = sorted(FrameReader().feed(body), key=lambda frame: frame.index)
    return [
        np.empty(0, np.float32) if isinstance(frame, Failure) else np.frombuffer(frame.data, "<f4")
        for frame in frames
    ]


READ: dict[Form, Read] = {"float": read_floats, "base64": read_base64}
