"""How much a body may hold, seen before it is decoded: a value of two bytes becomes an object of fifty.

Without this a body of 1 MiB, `{"input": [1,1,1,...`, keeps the event loop busy for four seconds and takes
840 MiB of memory, since each wrong value becomes an error of its own.
"""

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationInfo
from pydantic_core import PydanticCustomError

from router.errors import Invalid

# Far more than a request with as many inputs as it may have needs, however its items are written.
VALUES_PER_ITEM = 32
LEAST_VALUES = 1024

# Every value but the first stands behind one of these.
_BEFORE_VALUES = b",[{"


def check_values(body: bytes, max_items: int) -> None:
    """Raise `Invalid` when `body` holds more JSON values than any request needs.

    Exact up to where `body` is no JSON any more, which is how far the decoder goes. Nothing here loops over
    bytes: a body of 64 MiB takes tens of milliseconds.
    """
    limit = max(VALUES_PER_ITEM * max_items, LEAST_VALUES)
    # Nearly always that holds even with what stands in texts counted.
    if _count(body) <= limit:
        return
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Without escapes every second piece is what stands between strings.
    if body.count(b'"') > 2 * limit or _count(b"".join(body.split(b'"')[::2])) > limit:
        raise Invalid.field(
            "body", f"too many values for a request of at most {max_items} inputs", "too_long"
        )


@dataclass(slots=True)
class MaxItems:
    """Context of a validation: how many of `noun` a request may have."""

    max_items: int
    noun: str


def not_too_many(value: Any, info: ValidationInfo) -> Any:
    """Refuse a list that is too long before each of its items is looked at, and may be an error."""
    most = info.context
    if isinstance(most, MaxItems) and isinstance(value, list) and len(value) > most.max_items:
        raise PydanticCustomError(
            "too_long",
            "at most {max_items} {noun} a request",
            {"max_items": most.max_items, "noun": most.noun},
        )
    return value


def _count(data: bytes) -> int:
    return sum(map(data.count, _BEFORE_VALUES))
