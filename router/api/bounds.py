"""Limits on the number of values in a body, checked before it is parsed.

Without them, a body of 1 MiB, `{"input": [1,1,1,...`, blocks the event loop for four seconds and takes 840
MiB of memory, since each wrong value becomes an error.
"""

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationInfo
from pydantic_core import PydanticCustomError

from triptych.router.errors import Invalid

# Far more than the largest valid request needs, however its items are written.
VALUES_PER_ITEM = 32
LEAST_VALUES = 1024

# Each value but the first follows one of these.
_BEFORE_VALUES = b",[{"


def check_values(body: bytes, max_items: int) -> None:
    """Raise `Invalid` if `body` has more JSON values than any request needs.

    The count is exact up to the first syntax error, where the parser stops too. Nothing here loops over bytes
    in Python.
    """
    limit = most_values(max_items)
    # Nearly always true, even though this also counts inside of strings.
    if _count(body) <= limit:
        return
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    # A value has two strings at most: itself and its key.
    # Without escapes, every second piece is between strings.
    if body.count(b'"') > 4 * limit or _count(b"".join(body.split(b'"')[::2])) > limit:
        raise Invalid.field(
            "body", f"too many values for a request with at most {max_items} inputs", "too_long"
        )


def most_values(max_items: int) -> int:
    return max(VALUES_PER_ITEM * max_items, LEAST_VALUES)


@dataclass(slots=True)
class MaxItems:
    """Validation context: the limit of items per request, and the noun for them in errors."""

    max_items: int
    noun: str


def not_too_many(value: Any, info: ValidationInfo) -> Any:
    """Refuse a list that is too long before its items are validated."""
    most = info.context
    if isinstance(most, MaxItems) and isinstance(value, list) and len(value) > most.max_items:
        raise PydanticCustomError(
            "too_long",
            "at most {max_items} {noun} per request",
            {"max_items": most.max_items, "noun": most.noun},
        )
    return value


def _count(data: bytes) -> int:
    return sum(map(data.count, _BEFORE_VALUES))
