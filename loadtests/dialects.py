"""How servers are asked, and how their replies are read: what each calls things."""

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, cast
from urllib.parse import unquote

import numpy as np
import orjson
import pybase64
from numpy.typing import NDArray

from loadtests.request import TASKS, Input, Request, Task
from loadtests.results import Clock

Vector = NDArray[np.float32]
NAMES = ("jina", "openai", "vllm")

EMBEDDINGS, RERANK = "/v1/embeddings", "/v1/rerank"
# A server of one variant knows no tasks; its client puts before a text what the model was trained with
# (modeling_jina_embeddings_v4.py).
PREFIXES: Mapping[Task, str] = {
    task: "Passage: " if task.endswith(".passage") else "Query: " for task in TASKS
}
# Milliseconds, by the names that our router gives its own times.
TIMINGS: Mapping[str, Clock] = {
    "x-total-time": "router",
    "x-queue-time": "queue",
    "x-inference-time": "inference",
    "x-router-overhead": "overhead",
}


class Unreadable(Exception):
    """A 200 whose body is not what the dialect knows; the text says what is missing or wrong."""


class Call(NamedTuple):
    """A POST."""

    url: str
    body: bytes
    headers: dict[str, str]


class Reply(NamedTuple):
    """What came back, in the order of the reply.

    `vectors` are (dimensions,), or (tokens, dimensions) where a vector for each token was asked for; they
    cannot be written to. `indexes` say which input each, or each of the `scores` of a rerank request, is of.
    `tokens` is 0 where a server that has to count them does not, None where it need not.
    """

    vectors: list[Vector]
    indexes: list[int]
    scores: list[float]
    tokens: int | None


class Dialect(Protocol):
    """One way of asking."""

    name: str

    def encode(self, request: Request) -> Call:
        """What to send for `request`, which is one that `unsupported` has nothing against."""

    def decode(self, request: Request, body: bytes) -> Reply:
        """What a 200's body holds. Raises `Unreadable`."""

    def unsupported(self, request: Request) -> str | None:
        """Why a server of this dialect cannot do it, None where it can."""

    def clocks(self, headers: Mapping[str, str]) -> dict[Clock, float]:
        """Seconds that the server says of itself; without those it does not say, or that are no times.

        `headers` do not mind the case of a name.
        """


def pool_of(task: Task) -> str:
    """The pool that serves a task."""
    return task.partition(".")[0]


def dialect(name: str, target: Mapping[str, str], *, model: str, key: str | None) -> Dialect:
    """By name. `target` maps a pool, or "" for all of them, to an address, which may have a path, and a name
    and password for HTTP's Basic authentication.

    Raises `ValueError` for an unknown name, where a pool has no address, or where one has a password beside
    `key`.
    """
    if name not in NAMES:
        raise ValueError(f"dialect {name}: one of {', '.join(NAMES)}")
    missing = [pool for pool in dict.fromkeys(map(pool_of, TASKS)) if pool not in target and "" not in target]
    if missing:
        raise ValueError(f"no address for {', '.join(missing)}: give one for each pool, or one for all")
    places = {task: _place(target.get(pool_of(task), target.get("", "")), key) for task in TASKS}
    return _Jina(places, model) if name == "jina" else _OpenAI(name, places, model)


class _Place(NamedTuple):
    """Where requests of a task go, and the headers that they have there."""

    address: str
    headers: dict[str, str]


class _Jina:
    """Jina's API, which is ours too."""

    name: str = "jina"

    def __init__(self, places: Mapping[Task, _Place], model: str) -> None:
        self._places, self._model = places, model

    def encode(self, request: Request) -> Call:
        inputs = [_input(content) for content in request.inputs]
        body: dict[str, Any] = {"model": self._model}
        if request.kind == "rerank":
            body |= {"query": request.query, "documents": inputs, "return_documents": False}
            path = RERANK
        else:
            body |= {"task": request.task, "input": inputs, "embedding_type": request.encoding}
            if request.dimensions:
                body["dimensions"] = request.dimensions
            if request.multivector:
                body["return_multivector"] = True
            if request.late_chunking:
                body["late_chunking"] = True
            path = EMBEDDINGS
        address, headers = self._places[request.task]
        return Call(address + path, orjson.dumps(body), {**headers, **request.headers})

    def decode(self, request: Request, body: bytes) -> Reply:
        return _read(request, body, counts=True)

    def unsupported(self, request: Request) -> str | None:
        if request.multivector and (request.dimensions or request.late_chunking):
            return "multivector goes with neither dimensions nor late_chunking"
        if request.late_chunking and _has_images(request):
            return "late_chunking is for texts, not for images"
        return None

    def clocks(self, headers: Mapping[str, str]) -> dict[Clock, float]:
        return _clocks(headers)


class _OpenAI:
    """OpenAI's embeddings; as `vllm` with what vLLM's own server adds to them.

    Such a server has one variant. vLLM cuts to `dimensions` only if it was told that the model is one for
    that (`is_matryoshka`), and cannot give what the projector gives, which it does not know.
    """

    def __init__(self, name: str, places: Mapping[Task, _Place], model: str) -> None:
        self.name = name
        self._places, self._model = places, model

    def encode(self, request: Request) -> Call:
        prefix = PREFIXES[request.task]
        inputs = [prefix + cast(str, content) for content in request.inputs]
        body: dict[str, Any] = {"model": self._model, "input": inputs}
        body["encoding_format"] = request.encoding
        if request.dimensions:
            body["dimensions"] = request.dimensions
        if self.name == "vllm":
            # The model was trained without.
            body["add_special_tokens"] = False
        address, headers = self._places[request.task]
        return Call(address + EMBEDDINGS, orjson.dumps(body), {**headers, **request.headers})

    def decode(self, request: Request, body: bytes) -> Reply:
        # Many servers that are like OpenAI's say 0, or nothing.
        return _read(request, body, counts=self.name == "vllm")

    def unsupported(self, request: Request) -> str | None:
        if request.kind == "rerank":
            return "it reranks with models made for that, which this one is not (rerank)"
        if request.multivector:
            return "it gives one vector for each input (multivector)"
        if request.late_chunking:
            return "it reads each input alone (late_chunking)"
        if _has_images(request):
            if self.name == "vllm":
                return "its mean is over all of an image's prompt, not over the image alone (images)"
            return "its embeddings take texts (images)"
        return None

    def clocks(self, headers: Mapping[str, str]) -> dict[Clock, float]:
        return _clocks(headers)


def _has_images(request: Request) -> bool:
    return any(isinstance(content, bytes) for content in request.inputs)


def _place(address: str, key: str | None) -> _Place:
    """Without what OpenAI's clients are told to write at the end of an address, and with a header for what
    may stand before the host, which not every client looks at."""
    scheme, separator, rest = address.rstrip("/").removesuffix("/v1").partition("://")
    host, slash, path = rest.partition("/")
    userinfo, _, host = host.rpartition("@")
    headers = {"Content-Type": "application/json"}
    if userinfo and key:
        raise ValueError(
            f"{scheme}://***@{host}: give a key, or a name and password here; both go into one header"
        )
    if userinfo:
        name, _, password = userinfo.partition(":")
        pair = f"{unquote(name)}:{unquote(password)}".encode()
        headers["Authorization"] = f"Basic {pybase64.b64encode_as_string(pair)}"
    elif key:
        headers["Authorization"] = f"Bearer {key}"
    return _Place(f"{scheme}{separator}{host}{slash}{path}", headers)


def _input(content: Input) -> str | dict[str, str]:
    if isinstance(content, str):
        return content
    form = "png" if content.startswith(b"\x89PNG") else "jpeg"
    return {"image": f"data:image/{form};base64,{pybase64.b64encode_as_string(content)}"}


def _clocks(headers: Mapping[str, str]) -> dict[Clock, float]:
    found: dict[Clock, float] = {}
    for name, clock in TIMINGS.items():
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) / 1e3
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds >= 0:
            found[clock] = seconds
    return found


def _read(request: Request, body: bytes, *, counts: bool) -> Reply:
    """`counts`: this server has to say how many tokens there were."""
    try:
        document = orjson.loads(body)
        tokens = _tokens(document.get("usage"), counts)
        if request.kind == "rerank":
            ranked = document["results"]
            scores = [float(entry["relevance_score"]) for entry in ranked]
            return Reply([], _indexes(ranked), scores, tokens)
        data = document["data"]
        read = _READ[request.encoding]
        if request.multivector:
            vectors = [_matrix([read(row) for row in entry["embeddings"]]) for entry in data]
        else:
            vectors = [np.frombuffer(read(entry["embedding"]), "<f4") for entry in data]
        return Reply(vectors, _indexes(data), [], tokens)
    except orjson.JSONDecodeError as error:
        raise Unreadable(f"no JSON: {error}") from None
    except KeyError as error:
        raise Unreadable(f"it has no {error}") from None
    except (AttributeError, TypeError, ValueError, OverflowError, struct.error) as error:
        raise Unreadable(f"not in the shape that was asked for ({request.encoding}): {error}") from None


def _tokens(usage: Any, counts: bool) -> int | None:
    said = usage if isinstance(usage, dict) else {}
    tokens = said.get("total_tokens") or said.get("prompt_tokens")
    if type(tokens) is int and tokens > 0:
        return tokens
    return 0 if counts else None


def _indexes(entries: Sequence[Any]) -> list[int]:
    indexes = [entry["index"] for entry in entries]
    if any(type(index) is not int for index in indexes):
        raise TypeError("an index is no whole number")
    return indexes


def _matrix(rows: Sequence[bytes]) -> Vector:
    if len({len(row) for row in rows}) != 1:
        raise ValueError("an entry has no rows, or rows of more than one length")
    return np.frombuffer(b"".join(rows), "<f4").reshape(len(rows), -1)


def _from_base64(text: Any) -> bytes:
    return pybase64.b64decode(text, validate=True)


def _from_numbers(numbers: Any) -> bytes:
    # Twice as fast as numpy is with Python's floats, and takes nothing but numbers.
    return struct.pack(f"<{len(numbers)}f", *numbers)


_READ: Mapping[str, Callable[[Any], bytes]] = {"base64": _from_base64, "float": _from_numbers}
