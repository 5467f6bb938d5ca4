"""How servers are asked and how their replies are read: our API (which is Jina's), OpenAI's and vLLM's."""

import struct
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, cast

import msgspec
import numpy as np
import orjson
import pybase64
from numpy.typing import NDArray

from triptych.loadtests.results import Clock
from triptych.loadtests.scenario import TASKS, Flow, Input, Request, Task

Vector = NDArray[np.float32]

EMBEDDINGS, RERANK = "/v1/embeddings", "/v1/rerank"
# A server of one variant knows no tasks: its client writes the model's prefix
# (modeling_jina_embeddings_v4.py).
PREFIXES: Mapping[Task, str] = {
    task: "Passage: " if task.endswith(".passage") else "Query: " for task in TASKS
}
# No request takes so long; a histogram could not hold the largest floats.
LONGEST_SECONDS = 1e6
# In milliseconds.
TIMINGS: Mapping[str, Clock] = {
    "x-total-time": "router",
    "x-queue-time": "queue",
    "x-inference-time": "inference",
    "x-router-overhead": "overhead",
}


class Unreadable(Exception):
    """A reply with status 200 has the wrong format; the text says what is missing or wrong."""


class Call(NamedTuple):
    """A POST."""

    url: str
    body: bytes
    headers: dict[str, str]


class Reply(NamedTuple):
    """A reply, in its own order.

    `vectors` are (dimensions,), or (tokens, dimensions) for multi-vectors; read-only. `indexes` say which
    input each vector or score belongs to. `tokens` is 0 if the server had to count them and did not, None if
    it need not.
    """

    vectors: list[Vector]
    indexes: list[int]
    scores: list[float]
    tokens: int | None


def pool_of(task: Task) -> str:
    """The pool that serves a task."""
    return task.partition(".")[0]


class Target(msgspec.Struct, kw_only=True, frozen=True):
    """What is tested and how it is asked. `addresses` are by pool, or "" for all.

    `timeout`: seconds for a connection, and for each silence of the server. `verify`: check certificates.
    """

    addresses: dict[str, str]
    dialect: Literal["jina", "openai", "vllm"]
    model: str
    key: str | None = None
    verify: bool = True
    timeout: float = 60


class Dialect:
    """The requests and replies of a target. Raises `ValueError` for a pool without an address.

    Servers of `openai` and `vllm` have one variant each. vLLM takes `dimensions` only for models that are
    declared as made for it (`is_matryoshka`), does not know the projector that gives multi-vectors, and
    averages over the whole prompt of an image instead of the image.
    """

    def __init__(self, target: Target) -> None:
        addresses = target.addresses
        pools = dict.fromkeys(map(pool_of, TASKS))
        if missing := [pool for pool in pools if not addresses.keys() & {pool, ""}]:
            raise ValueError(f"no address for {', '.join(missing)}: give one for each pool, or one for all")
        self.name, self._model = target.dialect, target.model
        # Without the /v1 that OpenAI's clients expect.
        self._addresses = {
            pool: (addresses.get(pool) or addresses[""]).rstrip("/").removesuffix("/v1") for pool in pools
        }
        self._headers = {"Content-Type": "application/json"}
        if target.key:
            self._headers["Authorization"] = f"Bearer {target.key}"

    def encode(self, request: Request) -> Call:
        """What to send for a request of a flow that `unsupported` accepts."""
        flow = request.flow
        path, body = self._jina(request) if self.name == "jina" else self._openai(request)
        if flow.dimensions:
            body["dimensions"] = flow.dimensions
        body["model"] = self._model
        url = self._addresses[pool_of(flow.task)] + path
        return Call(url, orjson.dumps(body), {**self._headers, **flow.headers})

    def decode(self, request: Request, body: bytes) -> Reply:
        """Read the body of a reply with status 200. Raises `Unreadable`."""
        flow = request.flow
        try:
            document = orjson.loads(body)
            # Many servers with OpenAI's API say 0, or nothing.
            tokens = _tokens(document.get("usage"), required=self.name != "openai")
            if flow.kind == "rerank":
                ranked = document["results"]
                scores = [float(entry["relevance_score"]) for entry in ranked]
                return Reply([], _indexes(ranked), scores, tokens)
            data = document["data"]
            read = _from_base64 if flow.encoding == "base64" else _from_numbers
            if flow.multivector:
                vectors = [_matrix([read(row) for row in entry["embeddings"]]) for entry in data]
            else:
                vectors = [np.frombuffer(read(entry["embedding"]), "<f4") for entry in data]
            return Reply(vectors, _indexes(data), [], tokens)
        except (AttributeError, LookupError, TypeError, ValueError, OverflowError, struct.error) as error:
            why = f"{type(error).__name__}: {error}"
            raise Unreadable(f"not in the requested format ({flow.encoding}): {why}") from None

    def unsupported(self, flow: Flow) -> str | None:
        """Why this dialect cannot express requests of `flow`; None if it can."""
        # Our API itself refuses combinations.
        used = {"rerank": flow.kind == "rerank", "images": flow.images > 0}
        used |= {"multivector": flow.multivector, "late_chunking": flow.late_chunking}
        found = [name for name, needed in used.items() if needed and self.name != "jina"]
        return f"{found[0]} is not supported" if found else None

    def _jina(self, request: Request) -> tuple[str, dict[str, Any]]:
        flow, inputs = request.flow, [_input(content) for content in request.inputs]
        if flow.kind == "rerank":
            return RERANK, {"query": request.query, "documents": inputs, "return_documents": False}
        body: dict[str, Any] = {"task": flow.task, "input": inputs, "embedding_type": flow.encoding}
        switches = {"return_multivector": flow.multivector, "late_chunking": flow.late_chunking}
        return EMBEDDINGS, body | {name: True for name, on in switches.items() if on}

    def _openai(self, request: Request) -> tuple[str, dict[str, Any]]:
        prefix = PREFIXES[request.flow.task]
        inputs = [prefix + cast(str, content) for content in request.inputs]
        body: dict[str, Any] = {"input": inputs, "encoding_format": request.flow.encoding}
        if self.name == "vllm":
            # The model was trained without them.
            body["add_special_tokens"] = False
        return EMBEDDINGS, body


def clocks(headers: Mapping[str, str]) -> dict[Clock, float]:
    """Seconds that a server reports in its timing headers. Invalid values are left out.

    `headers` ignore case.
    """
    found: dict[Clock, float] = {}
    for name, clock in TIMINGS.items():
        try:
            seconds = float(headers.get(name, "")) / 1e3
        except ValueError:
            continue
        if 0 <= seconds <= LONGEST_SECONDS:
            found[clock] = seconds
    return found


def _input(content: Input) -> str | dict[str, str]:
    if isinstance(content, str):
        return content
    form = "png" if content.startswith(b"\x89PNG") else "jpeg"
    return {"image": f"data:image/{form};base64,{pybase64.b64encode_as_string(content)}"}


def _tokens(usage: Any, *, required: bool) -> int | None:
    said = usage if isinstance(usage, dict) else {}
    tokens = said.get("total_tokens") or said.get("prompt_tokens")
    if type(tokens) is int and tokens > 0:
        return tokens
    return 0 if required else None


def _indexes(entries: Sequence[Any]) -> list[int]:
    indexes = [entry["index"] for entry in entries]
    if any(type(index) is not int for index in indexes):
        raise TypeError("an index is not an integer")
    return indexes


def _matrix(rows: Sequence[bytes]) -> Vector:
    if len({len(row) for row in rows}) != 1:
        raise ValueError("an entry has no rows, or rows of different lengths")
    return np.frombuffer(b"".join(rows), "<f4").reshape(len(rows), -1)


def _from_base64(text: Any) -> bytes:
    return pybase64.b64decode(text, validate=True)


def _from_numbers(numbers: Any) -> bytes:
    # Twice as fast as numpy with Python's floats, and accepts nothing but numbers.
    return struct.pack(f"<{len(numbers)}f", *numbers)
