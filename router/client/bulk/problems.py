"""What ends a bulk run early: changes when another of its reasons needs an exit status of its own."""


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
