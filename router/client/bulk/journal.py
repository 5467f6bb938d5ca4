"""Which batches are done: one line each, appended after their vectors are on disk.

The first line says what the run is of (the input's digest and every option that changes a vector or its
place), so that a run goes on only with what it began with. A line that a crash cut short does not count.
"""

import errno
import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import orjson

from router.client.bulk.problems import Refused

Failures = dict[int, str]


class _Content(NamedTuple):
    about: dict[str, Any] | None
    done: set[int]
    failures: Failures
    length: int


class Journal:
    """One run, new or continued; `done` are its batches, `failures` its rows that have no vector."""

    def __init__(self, path: Path, about: Mapping[str, Any], start_over: str) -> None:
        """Raises `Refused` when the journal is of another run, or another process is at work on it."""
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            self._lock(path)
            content = _parse(path.read_bytes())
            same = content.about == dict(about)
            if content.done and not same:
                raise Refused(_difference(path, content.about or {}, about, start_over))
            os.ftruncate(self._file, content.length if same else 0)
            self.done = content.done
            self.failures = content.failures
            if not same:
                self._append(dict(about))
        except BaseException:
            os.close(self._file)
            raise

    def _lock(self, path: Path) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(f"another process is writing {path}; let it finish or stop it") from None

    def add(self, batch: int, failures: Failures) -> None:
        """A batch is done: its vectors are on disk, but for the rows in `failures`."""
        self._append({"batch": batch, "failed": list(failures.items())} if failures else {"batch": batch})
        self.done.add(batch)
        self.failures |= failures

    def _append(self, line: dict[str, Any]) -> None:
        data = orjson.dumps(line) + b"\n"
        if os.write(self._file, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "the journal")
        os.fdatasync(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._file)


def _parse(data: bytes) -> _Content:
    length = data.rfind(b"\n") + 1
    lines = [orjson.loads(line) for line in data[:length].splitlines()]
    if not lines:
        return _Content(None, set(), {}, 0)
    failures = {row: reason for line in lines[1:] for row, reason in line.get("failed", ())}
    return _Content(lines[0], {line["batch"] for line in lines[1:]}, failures, length)


def _difference(path: Path, then: Mapping[str, Any], now: Mapping[str, Any], start_over: str) -> str:
    names = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    parts = [
        "the input file has changed"
        if name == "input"
        else f"{name} was {_shown(then.get(name))} and is now {_shown(now.get(name))}"
        for name in names
    ]
    return (
        f"{path} is of a run that was begun differently: {'; '.join(parts)}. "
        f"Go on with what it was begun with, or {start_over}"
    )


def _shown(value: object) -> str:
    return "not given" if value is None else str(value)
