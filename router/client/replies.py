"""Decodes replies into arrays (no I/O).

Nothing loops over floats: each vector is one base64 string.
"""

import binascii
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from triptych.router.client.errors import ReplyInvalid, error_class
from triptych.router.client.requests import Item

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class RankedDocument:
    """A document and its score; `index` is its position in the request."""

    index: int
    relevance_score: float
    document: Item


class Readiness(NamedTuple):
    """Whether every pool can answer. `pools` says `ready` for a pool, or what it lacks.

    `vector_spaces` lists what each pool serves: one space, or two during an upgrade.
    """

    ready: bool
    pools: dict[str, str]
    vector_spaces: Mapping[str, list[str]]

    def __bool__(self) -> bool:
        return self.ready


class OneSpace:
    """Checks that all replies of one call have the same vector space per pool, one of those `required`."""

    def __init__(self, required: str | None) -> None:
        # As the server reads it: a space without a pool stands for every pool.
        self._required: defaultdict[str, set[str]] = defaultdict(set)
        for pool, space in _spaces(required or ""):
            self._required[pool].add(space)
        self._first: dict[str, str] = {}

    def check(self, headers: Mapping[str, str]) -> None:
        """Raise `ReplyInvalid` if a reply has a space that is not required, or another than one before it."""
        for pool, space in _spaces(headers.get("x-vector-space", "")):
            required = self._required.get(pool) or self._required.get("")
            if required and space not in required:
                raise ReplyInvalid(f"the server returned vectors of another space: {pool}={space}")
            if (first := self._first.setdefault(pool, space)) != space:
                raise ReplyInvalid(
                    f"the vector space of pool {pool} changed from {first} to {space} in this call; embed "
                    "all inputs again, or choose one space with vector_space"
                )


def _spaces(header: str) -> list[tuple[str, str]]:
    """The pools and vector spaces in a header."""
    parts = [part.strip().rpartition("=") for part in header.split(",") if part.strip()]
    return [(pool, space) for pool, _, space in parts]


def accept(status: int, headers: Mapping[str, str], body: bytes, one_space: OneSpace | None = None) -> bytes:
    """The body of a successful reply; raises `StatusError` for any other, and what `one_space` raises."""
    if 200 <= status < 300:
        if one_space is not None:
            one_space.check(headers)
        return body
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        content = None
    if not isinstance(content, dict):
        content = {"detail": body[:200].decode("utf-8", "replace").strip()}
        if status < 400 and "location" in headers:
            content["detail"] = f"redirect to {headers['location']}, which is not followed"
    code = str(content.get("code") or "")
    errors = content.get("errors")
    errors = errors if isinstance(errors, list) else []
    faults: list[Any] = [fault for fault in errors if isinstance(fault, dict) and "field" in fault]
    raise error_class(status, code)(
        status,
        str(content.get("detail") or "no reason given"),
        code=code,
        request_id=content.get("request_id") or headers.get("x-request-id"),
        retry_after=headers.get("retry-after"),
        errors=faults,
    )


def vectors(body: bytes, items: Sequence[Item], dimensions: int | None) -> Floats:
    """The vectors of `items`, float32 [n, dimensions]; raises `ReplyInvalid` for others."""
    matrix = _matrix(_entries(body, items, "embedding"))
    if dimensions not in (None, matrix.shape[1]):
        raise ReplyInvalid(f"{dimensions} dimensions were requested, {matrix.shape[1]} returned")
    return matrix


def multivectors(body: bytes, items: Sequence[Item]) -> list[Floats]:
    """One matrix for each of `items`, float32 [tokens, 128]. Raises `ReplyInvalid`."""
    entries = _entries(body, items, "embeddings")
    if not all(entries):
        raise ReplyInvalid("a multi-vector is not a list of vectors")
    return [_matrix(entry) for entry in entries]


def join(matrices: Sequence[Floats]) -> Floats:
    """Concatenate matrices; raises `ReplyInvalid` if their widths differ."""
    widths = {matrix.shape[1] for matrix in matrices}
    if len(widths) > 1:
        raise ReplyInvalid(f"the vectors have different lengths: {sorted(widths)}")
    return np.concatenate(matrices)


def ranked(body: bytes, documents: Sequence[Item], top_n: int | None) -> list[RankedDocument]:
    """All documents, or `top_n`, in the order of the reply, best first. Raises `ReplyInvalid`."""
    found = []
    left = set(range(len(documents)))
    for result in _list(body, "results", min(top_n or len(documents), len(documents))):
        index = _field(result, "index", int)
        if index not in left:
            raise ReplyInvalid(f"document {index} was ranked twice, or was not sent")
        left.remove(index)
        score = float(_field(result, "relevance_score", int | float))
        found.append(RankedDocument(index, score, documents[index]))
    return found


def model_names(body: bytes) -> list[str]:
    """The names of `GET /v1/models`."""
    return [_field(entry, "id", str) for entry in _list(body, "data", None)]


def readiness(status: int, headers: Mapping[str, str], body: bytes) -> Readiness:
    """The reply of `GET /ready`, with any status. Raises like `accept` if it is another reply."""
    try:
        content = _object(body)
        ready, pools = _field(content, "ready", bool), _field(content, "pools", dict)
    except ReplyInvalid:
        accept(status, headers, body)
        raise
    spaces = _field({"vector_spaces": {}, **content}, "vector_spaces", dict)
    if not all(isinstance(space, str) for pool in spaces for space in _field(spaces, pool, list)):
        raise ReplyInvalid("the reply has a vector space that is not a string")
    return Readiness(ready, pools, spaces)


def _entries(body: bytes, items: Sequence[Item], field: str) -> list[Any]:
    """One field of each entry of `data`, in order of `index`."""
    # A PDF gives one vector per page.
    has_pdf = any(isinstance(item, Mapping) and "pdf" in item for item in items)
    data = _list(body, "data", None if has_pdf else len(items))
    if not data:
        raise ReplyInvalid("the reply has no vectors")
    found: dict[int, Any] = {
        _field(entry, "index", int): _field(entry, field, str if field == "embedding" else list)
        for entry in data
    }
    if found.keys() != set(range(len(data))):
        raise ReplyInvalid(f"the indexes of {len(data)} vectors are not 0 to {len(data) - 1}")
    return [found[index] for index in range(len(data))]


def _matrix(texts: list[Any]) -> Floats:
    return join([_row(text) for text in texts]).astype(np.float32, copy=False)


def _row(text: Any) -> Floats:
    """One vector, as a matrix."""
    try:
        values: Floats = np.frombuffer(binascii.a2b_base64(text), "<f4").reshape(1, -1)
    except (ValueError, TypeError) as error:
        raise ReplyInvalid(f"a vector is not base64 of float32 values: {error}") from None
    if not values.size or not np.isfinite(values).all():
        raise ReplyInvalid("a vector is empty or has values that are not finite")
    return values


def _list(body: bytes, name: str, count: int | None) -> list[Any]:
    """A field of a reply. Raises `ReplyInvalid` unless it has `count` entries."""
    found: list[Any] = _field(_object(body), name, list)
    if count is not None and len(found) != count:
        raise ReplyInvalid(f"{name!r} should have {count} entries and has {len(found)}")
    return found


def _object(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ReplyInvalid(f"the reply is not JSON: {error}") from None


def _field(content: Any, name: str, kind: Any) -> Any:
    value = content.get(name) if isinstance(content, dict) else None
    if not isinstance(value, kind):
        raise ReplyInvalid(f"the reply has no valid field {name!r}")
    return value
