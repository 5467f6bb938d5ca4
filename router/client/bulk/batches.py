"""Embeds one batch of rows, and finds the faulty rows if the server refuses it."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np

from triptych.router.client.bulk.journal import Failures
from triptych.router.client.bulk.problems import BadRow, RowFailed
from triptych.router.client.bulk.source import Row
from triptych.router.client.errors import (
    CrashesWorker,
    Invalid,
    MediaInvalid,
    MediaUnreachable,
    ReplyInvalid,
    StatusError,
    TokenLimitExceeded,
    TooLarge,
)
from triptych.router.client.replies import Floats

Embed = Callable[[list[str | dict[str, Any]]], Awaitable[Floats]]
_Numbered = Sequence[tuple[int, str | dict[str, Any]]]


async def embed_batch(
    embed: Embed, start: int, rows: Sequence[Row], skip: bool
) -> tuple[Floats | None, Failures]:
    """The vectors [n, d] of `rows`, of which the first has number `start`, and the failed rows with reasons.

    Vectors of failed rows are NaN; if all rows failed, there are none. Raises `RowFailed` at the first failed
    row unless `skip`, and any error that no row causes.
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
            raise ReplyInvalid(f"{len(numbered)} rows gave vectors of shape {some.shape}")
        vectors[[number - start for number, _ in numbered]] = some
    return vectors, failures


async def _embed(
    embed: Embed,
    rows: _Numbered,
    skip: bool,
    found: list[tuple[_Numbered, Floats]],
    failures: Failures,
) -> None:
    """Embed `rows`. If they are refused, embed each half, until only faulty rows are left out."""
    if not rows:
        return
    try:
        found.append((rows, await embed([row for _, row in rows])))
        return
    except StatusError as error:
        if not _row_is_at_fault(error):
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


def _row_is_at_fault(error: StatusError) -> bool:
    """Whether a row causes the error. A wrong option, for example, would fail every row."""
    if isinstance(error, Invalid):
        fields = [fault["field"] for fault in error.errors]
        return bool(fields) and all(field.startswith("body -> input") for field in fields)
    return isinstance(error, TokenLimitExceeded | MediaInvalid | MediaUnreachable | TooLarge | CrashesWorker)
