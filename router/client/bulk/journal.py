"""Which batches are done: one line each, appended after their vectors are on disk.

The first line records the run: the input's digest, every option that changes a vector or its place, and the
vector space. A run continues only with the same. An incomplete last line, left by a crash, is dropped.
"""

import errno
import fcntl
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import orjson

from triptych.router.client.bulk.problems import Refused

Failures = dict[int, str]
SPACE = "vector_space"


class Journal:
    """The journal of a run, new or continued. `done` has its batches, `failures` its rows without a vector.

    `space` is the vector space of a continued run, None for a new one or if the server named none.
    """

    def __init__(self, path: Path, about: Mapping[str, Any], start_over: str) -> None:
        """Raises `Refused` if the journal is damaged or of another run, or another process uses it."""
        self._about = dict(about)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        with ExitStack() as undo:
            undo.callback(os.close, self._file)
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                data = path.read_bytes()
                complete = data[: data.rfind(b"\n") + 1]
                before, *batches = [orjson.loads(line) for line in complete.splitlines()] or [{}]
                self.space: str | None = before.pop(SPACE, None)
                self.done: set[int] = {line["batch"] for line in batches}
                self.failures: Failures = {row: why for one in batches for row, why in one.get("failed", ())}
            except BlockingIOError:
                raise Refused(f"another process is writing {path}; let it finish or stop it") from None
            except (ValueError, TypeError, KeyError, AttributeError):
                raise Refused(f"{path} is damaged, or of another program; {start_over}") from None
            if self.done and before != self._about:
                raise Refused(_difference(path, before, about, start_over))
            os.ftruncate(self._file, len(complete) if self.done else 0)
            undo.pop_all()

    def begin(self, space: str | None) -> None:
        """Start a new run, with vectors of `space`."""
        self.space = space
        self._append({**self._about, SPACE: space})

    def add(self, batch: int, failures: Failures) -> None:
        """Record a batch whose vectors are on disk, except for the rows in `failures`."""
        self._append({"batch": batch, "failed": list(failures.items())} if failures else {"batch": batch})
        self.done.add(batch)
        self.failures |= failures

    def _append(self, line: dict[str, Any]) -> None:
        data = orjson.dumps(line) + b"\n"
        written = os.write(self._file, data)
        if written != len(data):
            # Another batch may find room again, and would continue this line.
            os.ftruncate(self._file, os.fstat(self._file).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "the journal")
        os.fdatasync(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)


def _difference(path: Path, then: Mapping[str, Any], now: Mapping[str, Any], start_over: str) -> str:
    names = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    parts = [
        "the input file has changed"
        if name == "input"
        else f"{name} was {_shown(then.get(name))} and is now {_shown(now.get(name))}"
        for name in names
    ]
    return f"{path} is of another run: {'; '.join(parts)}. Use the same options and input, or {start_over}"


def _shown(value: object) -> str:
    return "not given" if value is None else str(value)
