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
    StatusError,
    TokenLimitExceeded,
    TooLarge,
)
from triptych.router.client.replies import Floats, join

Embed = Callable[[list[str | dict[str, Any]]], Awaitable[Floats]]


async def embed_batch(
    embed: Embed, start: int, rows: Sequence[Row], skip: bool
) -> tuple[Floats | None, Failures]:
    """The vectors [n, d] of `rows`, of which the first has number `start`, and the failed rows with reasons.

    Vectors of failed rows are NaN; if all rows failed, they are None. Raises `RowFailed` at the first row
    that the server refuses unless `skip`, and any error that no row causes.
    """
    good = {number: row for number, row in enumerate(rows, start) if not isinstance(row, BadRow)}
    failures = {number: row.reason for number, row in enumerate(rows, start) if isinstance(row, BadRow)}
    embedded: list[int] = []
    found: list[Floats] = []

    async def embed_some(numbers: list[int]) -> None:
        """Embed these rows. If they are refused, embed each half, until only faulty rows are left out."""
        try:
            found.append(await embed([good[number] for number in numbers]))
            embedded.extend(numbers)
        except StatusError as error:
            if not _row_is_at_fault(error):
                raise
            half = len(numbers) // 2
            if half:
                await embed_some(numbers[:half])
                await embed_some(numbers[half:])
                return
            reason = f"{error.code}: {error.detail}"
            if not skip:
                raise RowFailed(numbers[0], reason) from error
            failures[numbers[0]] = reason

    if good:
        await embed_some(list(good))
    if not found:
        return None, failures
    matrix = join(found)
    vectors = np.full((len(rows), matrix.shape[1]), np.nan, np.float32)
    vectors[[number - start for number in embedded]] = matrix
    return vectors, failures


def _row_is_at_fault(error: StatusError) -> bool:
    """Whether a row causes the error. A wrong option, for example, would fail every row."""
    if isinstance(error, Invalid):
        fields = [fault["field"] for fault in error.errors]
        return bool(fields) and all(field.startswith("body -> input") for field in fields)
    return isinstance(error, TokenLimitExceeded | MediaInvalid | MediaUnreachable | TooLarge | CrashesWorker)
