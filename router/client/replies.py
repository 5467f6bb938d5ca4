"""From replies to arrays (pure): changes when a form of reply does.

Nothing loops over floats: each vector is one base64 string, decoded into its row.
"""

import binascii
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from router.client.errors import ReplyInvalid, error_class
from router.client.requests import Item

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class RankedDocument:
    """A document and how well it answers; `index` is its place among those given."""

    index: int
    relevance_score: float
    document: Item


class Readiness(NamedTuple):
    """Whether every pool can answer; `pools` says `ready` or what is missing for each.

    `vector_spaces` are those that each pool serves: one, or two during an upgrade.
    """

    ready: bool
    pools: dict[str, str]
    vector_spaces: Mapping[str, list[str]] = MappingProxyType({})

    def __bool__(self) -> bool:
        return self.ready


class OneSpace:
    """Checks that the replies to the parts of one call are of one vector space for each pool."""

    def __init__(self) -> None:
        self._spaces: dict[str, str] = {}

    def check(self, headers: Mapping[str, str]) -> None:
        """Raise `ReplyInvalid` when a reply with `headers` is of another space than one before it."""
        for named in filter(None, headers.get("x-vector-space", "").split(",")):
            pool, _, space = named.strip().partition("=")
            if (first := self._spaces.setdefault(pool, space)) != space:
                raise ReplyInvalid(
                    f"the pool {pool} changed its vector space from {first} to {space} between two requests "
                    "of this call; embed all inputs again, or choose one space with vector_space"
                )


def accept(status: int, headers: Mapping[str, str], body: bytes) -> bytes:
    """`body` when the reply is a good one; raises the `StatusError` that it stands for otherwise."""
    if 200 <= status < 300:
        return body
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        content = None
    if not isinstance(content, dict):
        content = {"detail": body[:200].decode("utf-8", "replace").strip()}
    code = str(content.get("code") or "")
    errors = content.get("errors")
    raise error_class(status, code)(
        status,
        str(content.get("detail") or "no reason given"),
        code=code,
        request_id=content.get("request_id") or headers.get("x-request-id"),
        retry_after=headers.get("retry-after"),
        errors=errors if isinstance(errors, list) else (),
    )


def vectors(body: bytes, count: int | None) -> Floats:
    """The matrix [n, d], float32, of a reply; raises `ReplyInvalid` unless it has `count` rows."""
    rows = [_vector(entry) for entry in _entries(body, count, "embedding")]
    _same_width(rows)
    return np.stack(rows).astype(np.float32, copy=False)


def multivectors(body: bytes, count: int | None) -> list[Floats]:
    """For each input a matrix [tokens, 128], float32; raises `ReplyInvalid` unless there are `count`."""
    matrices = []
    for entry in _entries(body, count, "embeddings"):
        if not isinstance(entry, list) or not entry:
            raise ReplyInvalid("a multi-vector is not a list of vectors")
        rows = [_vector(row) for row in entry]
        _same_width(rows)
        matrices.append(np.stack(rows).astype(np.float32, copy=False))
    return matrices


def join(matrices: Sequence[Floats]) -> Floats:
    """The matrices one below the other; raises `ReplyInvalid` when they are not equally wide."""
    _same_width(matrices)
    return matrices[0] if len(matrices) == 1 else np.concatenate(matrices)


def ranked(body: bytes, documents: Sequence[Item]) -> list[RankedDocument]:
    """The documents, best first, as the server ranked them."""
    results = _field(_object(body), "results", list)
    found = []
    left = set(range(len(documents)))
    for result in results:
        index = _field(result, "index", int)
        if index not in left:
            raise ReplyInvalid(f"document {index} of {len(documents)} was ranked twice, or is none of them")
        left.remove(index)
        score = float(_field(result, "relevance_score", int | float))
        found.append(RankedDocument(index, score, documents[index]))
    return found


def model_names(body: bytes) -> list[str]:
    """The names of `GET /v1/models`."""
    return [_field(entry, "id", str) for entry in _field(_object(body), "data", list)]


def readiness(body: bytes) -> Readiness:
    """What `GET /ready` says, with whichever status."""
    content = _object(body)
    spaces = content.get("vector_spaces", {})
    return Readiness(_field(content, "ready", bool), dict(_field(content, "pools", dict)), dict(spaces))


def _entries(body: bytes, count: int | None, field: str) -> list[Any]:
    """That field of each entry of `data`, by `index`."""
    data = _field(_object(body), "data", list)
    if count is not None and len(data) != count:
        raise ReplyInvalid(f"{count} vectors were asked for, {len(data)} came")
    if not data:
        raise ReplyInvalid("a reply without vectors")
    found: dict[int, Any] = {
        _field(entry, "index", int): _field(entry, field, str if field == "embedding" else list)
        for entry in data
    }
    if found.keys() != set(range(len(data))):
        raise ReplyInvalid(f"the indexes of {len(data)} vectors are not 0 to {len(data) - 1}")
    return [found[index] for index in range(len(data))]


def _vector(text: Any) -> Floats:
    try:
        values: Floats = np.frombuffer(binascii.a2b_base64(text), "<f4")
    except (ValueError, TypeError) as error:
        raise ReplyInvalid(f"a vector is not base64 of float32 values: {error}") from None
    if not values.size or not np.isfinite(values).all():
        raise ReplyInvalid("a vector is empty or has values that are no numbers")
    return values


def _same_width(arrays: Iterable[Floats]) -> None:
    widths = {array.shape[-1] for array in arrays}
    if len(widths) > 1:
        raise ReplyInvalid(f"vectors of different lengths came: {sorted(widths)}")


def _object(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ReplyInvalid(f"the reply is not JSON: {error}") from None


def _field(content: Any, name: str, kind: Any) -> Any:
    value = content.get(name) if isinstance(content, dict) else None
    if not isinstance(value, kind):
        raise ReplyInvalid(f"the reply has no {name!r} where the API has one")
    return value
