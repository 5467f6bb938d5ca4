"""Bulk input that cannot be used: a single row, or the whole run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be sent."""

    reason: str


class Refused(Exception):
    """The run cannot begin or go on as it was asked for; the text says what to change."""


class RowFailed(Exception):
    """A row cannot be embedded, and rows that fail are not to be skipped."""

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(f"row {row} (the first is 0): {reason}")
        self.row = row


def missing(package: str) -> Refused:
    """Something of the extra `bulk` is not installed."""
    return Refused(f"this needs {package}, which is not installed: pip install 'triptych[bulk]'")


def no_column(path: Path, column: str, columns: Any) -> Refused:
    """`path` has no column of that name."""
    names = ", ".join(map(str, columns)) or "none"
    return Refused(f"{path} has no column {column!r}; it has: {names} (--column names the one to embed)")
