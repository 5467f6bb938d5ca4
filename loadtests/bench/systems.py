"""The systems that are compared: how each is asked, and how its replies are read."""

import base64
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import orjson

from triptych.loadtests.bench.loops import Read, Vector, post
from triptych.loadtests.bench.measure import Groups
from triptych.loadtests.server_processes import Server
from triptych.workers.shared import contract
from triptych.workers.shared.families import V4

Form = Literal["float", "base64"]


class System(NamedTuple):
    """One system: its request for some texts, and how to read a reply.

    The vectors of one reply in `sample` are read and checked.
    """

    name: str
    processes: Groups
    url: str
    make: Callable[[Sequence[str]], bytes]
    read: Read | None = None
    sample: int = 40


def stock(
    server: Server, form: Form, router: Server | None = None, *, special_tokens: bool = False
) -> System:
    """vLLM's OpenAI server with its own pooler, also behind vllm-router."""
    url = (router or server).url
    make = partial(ask_stock, f"{url}/v1/embeddings", form, add_special_tokens=special_tokens)
    processes = {"vllm-router": router, "vLLM": server} if router else {"vLLM": server}
    name = "(b) vllm-router, stock vLLM" if router else "(a) stock vLLM"
    return System(name, processes, url, make, read_embeddings)


def worker(server: Server) -> System:
    """Our worker, asked as the router asks it."""
    make = partial(ask_worker, server.url)
    return System("(c) worker", {"worker": server}, server.url, make, read_frames)


def routed(router: Server, server: Server, form: Form, model: str = V4.name) -> System:
    """Our router and worker."""
    processes = {"router": router, "worker": server}
    make = partial(ask_router, router.url, form=form, model=model)
    return System("(d) router, worker", processes, router.url, make, read_embeddings)


def recipe(server: Server, form: Form, dimensions: int) -> System:
    """The published recipe: the server returns every token's hidden state, and the client averages.

    So the client has to read every reply.
    """

    def read(body: bytes) -> list[Vector]:
        states = [_array(entry["data"]).reshape(-1, dimensions) for entry in orjson.loads(body)["data"]]
        means: list[Vector] = [of_tokens.mean(axis=0) for of_tokens in states]
        return [mean / np.linalg.norm(mean) for mean in means]

    name = f"(e) token-level output, {'JSON' if form == 'float' else form}"
    make = partial(ask_stock, f"{server.url}/pooling", form, task="token_embed", use_activation=False)
    return System(name, {"vLLM": server}, server.url, make, read, sample=1)


def ask_stock(url: str, form: Form, texts: Sequence[str], **fields: object) -> bytes:
    """The request for vLLM's own server."""
    body = {"model": "stock", "input": [f"Query: {text}" for text in texts], "encoding_format": form}
    return post(url, orjson.dumps(body | {"add_special_tokens": False} | fields))


def ask_worker(url: str, texts: Sequence[str]) -> bytes:
    """The request for a worker's `/v1/encode`."""
    items = [contract.Item(contract.Text(text, "query")) for text in texts]
    return post(url + contract.ENCODE_PATH, contract.encode_request(contract.EncodeRequest(items)))


def ask_router(
    url: str,
    texts: Sequence[str],
    form: str = "float",
    task: str = "retrieval.query",
    headers: Mapping[str, str] | None = None,
    model: str = V4.name,
) -> bytes:
    """The request for our `/v1/embeddings`."""
    body = {"model": model, "task": task, "input": texts, "embedding_type": form}
    return post(f"{url}/v1/embeddings", orjson.dumps(body), headers)


def read_embeddings(body: bytes) -> list[Vector]:
    return [_array(entry["embedding"]) for entry in orjson.loads(body)["data"]]


def read_frames(body: bytes) -> list[Vector]:
    """Vectors in the order of the items. A failed item's vector is empty."""
    frames = sorted(contract.FrameReader().feed(body), key=lambda frame: frame.index)
    data = [b"" if isinstance(frame, contract.Failure) else frame.data for frame in frames]
    return [np.frombuffer(values, "<f4") for values in data]


def _array(value: Any) -> Vector:
    """Values from base64, or from a list or a list of lists."""
    if isinstance(value, str):
        return np.frombuffer(base64.b64decode(value), "<f4")
    return np.array(value, np.float32)
