"""The systems that are compared: how each is asked, and how its replies are read."""

import base64
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson

from loadtests.bench.connection import post
from loadtests.bench.loops import Read, Vector
from loadtests.bench.measure import Way
from loadtests.processes import Process, Router, StockServer, Worker, free_port
from workers.shared.contract import (
    ENCODE_PATH,
    EncodeRequest,
    Failure,
    FrameReader,
    Item,
    Text,
    encode_request,
)

Form = Literal["float", "base64"]
PREFIX = "Query: "
EMBEDDINGS = "/v1/embeddings"


class VllmRouter(Process):
    """vLLM's router in Rust (PyPI: vllm-router) in front of stock servers, otherwise with its defaults."""

    def __init__(self, log: Path, servers: Sequence[StockServer]) -> None:
        if importlib.util.find_spec("vllm_router") is None:
            raise SystemExit("vllm-router is not installed; run `make dev`")
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
    """(a) vLLM's OpenAI server; its own pooler takes the mean."""
    return Way(
        "(a) stock vLLM",
        {"vLLM": [server]},
        server.url,
        lambda texts: post(server.url + EMBEDDINGS, stock_body(texts, form)),
        READ[form],
    )


def stock_routed(router: VllmRouter, server: StockServer, form: Form = "float") -> Way:
    """(b) The same behind vllm-router."""
    return Way(
        "(b) vllm-router, stock vLLM",
        {"vllm-router": [router], "vLLM": [server]},
        router.url,
        lambda texts: post(router.url + EMBEDDINGS, stock_body(texts, form)),
        READ[form],
    )


def worker(server: Worker) -> Way:
    """(c) Our worker, asked as the router asks it."""
    return Way(
        "(c) worker",
        {"worker": [server]},
        server.url,
        lambda texts: post(server.url + ENCODE_PATH, worker_body(texts)),
        read_frames,
    )


def routed(router: Router, server: Worker, form: Form = "float") -> Way:
    """(d) Our router and worker."""
    return Way(
        "(d) router, worker",
        {"router": [router], "worker": [server]},
        router.url,
        lambda texts: ask_router(router, texts, form),
        READ[form],
    )


def recipe(server: StockServer, form: Form, dimensions: int) -> Way:
    """(e) The published recipe: the server returns every token's hidden state, and the client averages."""

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

    name = {"float": "JSON", "base64": "base64"}[form]
    return Way(f"(e) token-level output, {name}", {"vLLM": [server]}, server.url, make, read, read_all=True)


def stock_body(texts: Sequence[str], form: Form) -> bytes:
    """For vLLM's `/v1/embeddings`."""
    body: dict[str, Any] = {"model": "stock", "input": [PREFIX + text for text in texts]}
    return orjson.dumps(body | {"encoding_format": form, "add_special_tokens": False})


def worker_body(texts: Sequence[str]) -> bytes:
    """For a worker's `/v1/encode`."""
    return encode_request(EncodeRequest([Item(Text(text, "query")) for text in texts]))


def ask_router(
    router: Router,
    texts: Sequence[str],
    form: str = "float",
    *,
    task: str = "retrieval.query",
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """The request for our `/v1/embeddings`."""
    body = {"model": "jina-embeddings-v4", "task": task, "input": texts, "embedding_type": form}
    return post(router.url + EMBEDDINGS, orjson.dumps(body), headers)


def read_floats(body: bytes) -> list[Vector]:
    return [np.array(entry["embedding"], np.float32) for entry in orjson.loads(body)["data"]]


def read_base64(body: bytes) -> list[Vector]:
    return [
        np.frombuffer(base64.b64decode(entry["embedding"]), "<f4") for entry in orjson.loads(body)["data"]
    ]


def read_frames(body: bytes) -> list[Vector]:
    """Vectors in the order of the items. A failed item's vector is empty."""
    frames = sorted(FrameReader().feed(body), key=lambda frame: frame.index)
    return [
        np.empty(0, np.float32) if isinstance(frame, Failure) else np.frombuffer(frame.data, "<f4")
        for frame in frames
    ]


READ: dict[Form, Read] = {"float": read_floats, "base64": read_base64}
