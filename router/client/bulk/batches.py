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


async def embed_batch(
    embed: Embed, start: int, rows: Sequence[Row], skip: bool
) -> tuple[Floats | None, Failures]:
    """The vectors [n, d] of `rows`, of which the first has number `start`, and the failed rows with reasons.

    Vectors of failed rows are NaN; if all rows failed, there are none. Raises `RowFailed` at the first row
    that the server refuses unless `skip`, and any error that no row causes.
    """
    numbered = list(enumerate(rows, start))
    found = await _embed(
        embed, [(number, row) for number, row in numbered if not isinstance(row, BadRow)], skip
    )
    found |= {number: row.reason for number, row in numbered if isinstance(row, BadRow)}
    failures = {number: result for number, result in found.items() if isinstance(result, str)}
    widths = {len(result) for result in found.values() if not isinstance(result, str)}
    if not widths:
        return None, failures
    if len(widths) > 1:
        raise ReplyInvalid(f"the vectors of one batch have different lengths: {sorted(widths)}")
    vectors = np.full((len(rows), widths.pop()), np.nan, np.float32)
    for number, result in found.items():
        if not isinstance(result, str):
            vectors[number - start] = result
    return vectors, failures


async def _embed(
    embed: Embed, rows: Sequence[tuple[int, str | dict[str, Any]]], skip: bool
) -> dict[int, Floats | str]:
    """The vector of each row, or the reason for which it is refused.

    If the rows are refused, each half is embedded, until only faulty rows are left out.
    """
    try:
        vectors = await embed([row for _, row in rows]) if rows else ()
        return {number: vector for (number, _), vector in zip(rows, vectors, strict=True)}
    except StatusError as error:
        if not _row_is_at_fault(error):
            raise
        if len(rows) == 1:
            number, reason = rows[0][0], f"{error.code}: {error.detail}"
            if not skip:
                raise RowFailed(number, reason) from error
            return {number: reason}
    half = len(rows) // 2
    return await _embed(embed, rows[:half], skip) | await _embed(embed, rows[half:], skip)


def _row_is_at_fault(error: StatusError) -> bool:
    """Whether a row causes the error. A wrong option, for example, would fail every row."""
    if isinstance(error, Invalid):
        fields = [fault["field"] for fault in error.errors]
        return bool(fields) and all(field.startswith("body -> input") for field in fields)
    return isinstance(error, TokenLimitExceeded | MediaInvalid | MediaUnreachable | TooLarge | CrashesWorker)
