"""One batch of rows: embeds it, and finds out which rows are at fault when the server refuses it."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np

from router.client.bulk.journal import Failures
from router.client.bulk.problems import BadRow, RowFailed
from router.client.bulk.source import Row
from router.client.errors import (
    CrashesWorker,
    Invalid,
    MediaInvalid,
    MediaUnreachable,
    ReplyInvalid,
    StatusError,
    TokenLimitExceeded,
    TooLarge,
)
from router.client.replies import Floats

Embed = Callable[[list[str | dict[str, Any]]], Awaitable[Floats]]
_Numbered = Sequence[tuple[int, str | dict[str, Any]]]


async def embed_batch(
    embed: Embed, start: int, rows: Sequence[Row], skip: bool
) -> tuple[Floats | None, Failures]:
    """The vectors [n, d] of the rows that begin at `start`, NaN for those that failed, and why they did.

    None instead of vectors when all failed. Raises `RowFailed` at the first of them unless they are to be
    skipped, and any error that is not a row's fault.
    """
    failures: Failures = {}
    good: list[tuple[int, str | dict[str, Any]]] = []
    for number, row in enumerate(rows, start):
        if not isinstance(row, BadRow):
            good.append((number, row))
        elif skip:
            failures[number] = row.reason
        else:
            raise RowFailed(number, row.reason)
    found: list[tuple[_Numbered, Floats]] = []
    await _embed(embed, good, skip, found, failures)
    if not found:
        return None, failures
    vectors = np.full((len(rows), found[0][1].shape[1]), np.nan, np.float32)
    for numbered, some in found:
        if some.shape != (len(numbered), vectors.shape[1]):
            raise ReplyInvalid(f"vectors of shape {some.shape} came for {len(numbered)} rows")
        vectors[[number - start for number, _ in numbered]] = some
    return vectors, failures


async def _embed(
    embed: Embed,
    rows: _Numbered,
    skip: bool,
    found: list[tuple[_Numbered, Floats]],
    failures: Failures,
) -> None:
    """Embed `rows`, by halves when they are refused together, so that only those at fault are left out."""
    if not rows:
        return
    try:
        found.append((rows, await embed([row for _, row in rows])))
        return
    except StatusError as error:
        if not is_of_a_row(error):
            raise
        if len(rows) == 1:
            number, reason = rows[0][0], f"{error.code}: {error.detail}"
            if not skip:
                raise RowFailed(number, reason) from error
            failures[number] = reason
            return
    half = len(rows) // 2
    await _embed(embed, rows[:half], skip, found, failures)
    await _embed(embed, rows[half:], skip, found, failures)


def is_of_a_row(error: StatusError) -> bool:
    """Whether other rows might have been taken: not when an option is wrong, for one."""
    if isinstance(error, Invalid):
        fields = [fault["field"] for fault in error.errors]
        return bool(fields) and all(field.startswith("body -> input") for field in fields)
    return isinstance(error, TokenLimitExceeded | MediaInvalid | MediaUnreachable | TooLarge | CrashesWorker)
