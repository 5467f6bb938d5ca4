"""Errors of a bulk run: of one row, or of the whole run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be sent."""

    reason: str


class Refused(Exception):
    """The run cannot start or continue. The text says what to change."""


class RowFailed(Exception):
    """A row cannot be embedded, and failed rows are not skipped."""

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(f"row {row} (counted from 0): {reason}")


def no_column(path: Path, column: str, columns: Any) -> Refused:
    """The error for a missing column."""
    names = ", ".join(map(str, columns)) or "none"
    return Refused(f"{path} has no column {column!r}; it has: {names} (--column names the one to embed)")
