"""Log format of every process: plain or JSON lines, with the ids of the requests they belong to.

Imports only the standard library, because the router uses it.
"""

import json
import logging
import os
import select
import sys
from collections.abc import Iterable
from contextvars import ContextVar
from datetime import UTC, datetime
from itertools import islice
from typing import Literal

LogFormat = Literal["plain", "json"]

# Environment variable for the processes that vLLM starts; its value is the log level.
ENGINE_LOGS_JSON = "TRIPTYCH_ENGINE_LOGS_JSON"
# A batch may belong to hundreds of requests.
MOST_REQUESTS = 5

requests: ContextVar[tuple[str, ...]] = ContextVar("requests", default=())
"""The ids of the requests that the current task works for, added to its log lines."""

dropped_lines = 0
"""Lines that this process has dropped, see `Handler`."""


def some(ids: Iterable[str]) -> tuple[str, ...]:
    """The first `MOST_REQUESTS` distinct ids, and `...` if there are more."""
    found = tuple(islice(dict.fromkeys(ids), MOST_REQUESTS + 1))
    return found if len(found) <= MOST_REQUESTS else (*found[:-1], "...")


def configure(form: LogFormat, level: str, *, processes: bool = False) -> None:
    """Log to stderr from `level` on. With `processes`, plain lines have the process id."""
    handler = Handler(sys.stderr.fileno())
    handler.setFormatter(JsonFormatter() if form == "json" else PlainFormatter(processes=processes))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def configure_engine(form: LogFormat) -> None:
    """Make the processes that vLLM will start log in the same format. `plain` keeps vLLM's own."""
    if form == "json":
        # vLLM's own handlers and line prefixes are not JSON.
        os.environ["VLLM_CONFIGURE_LOGGING"] = "0"
        os.environ[ENGINE_LOGS_JSON] = os.environ.get("VLLM_LOGGING_LEVEL", "INFO")


def configure_in_engine() -> None:
    """Apply `configure_engine` inside a process of vLLM."""
    if level := os.environ.get(ENGINE_LOGS_JSON):
        configure("json", level)


class Handler(logging.Handler):
    """Writes lines to a file descriptor, and drops those that would have to wait.

    The pipe may have no reader. Once it is full, a write would block the process. When it has room again,
    a line says how many were dropped.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        global dropped_lines
        if self._dropped:
            text = f"{self._dropped} log lines were dropped, because the pipe was full"
            about = {"name": __name__, "levelno": logging.WARNING, "levelname": "WARNING", "msg": text}
            if self._write(self.format(logging.makeLogRecord(about))):
                self._dropped = 0
        try:
            line = self.format(record)
        except Exception:
            # A wrong call, such as "%d" of a text. As in `logging`, it is reported and does not raise.
            self.handleError(record)
            return
        if self._dropped or not self._write(line):
            self._dropped += 1
            dropped_lines += 1

    def _write(self, line: str) -> bool:
        """Whether all of `line` was written."""
        data = f"{line}\n".encode(errors="backslashreplace")
        try:
            # A pipe that is ready takes this much without blocking.
            for at in range(0, len(data), select.PIPE_BUF):
                if not self._poll.poll(0):
                    return False
                os.write(self._descriptor, data[at : at + select.PIPE_BUF])
        except OSError:
            return False
        return True


class PlainFormatter(logging.Formatter):
    """`2026-11-24 15:04:05,678 WARNING router.pool: message [request 0af7...]`."""

    def __init__(self, *, processes: bool = False) -> None:
        process = "%(process)d " if processes else ""
        super().__init__(f"%(asctime)s {process}%(levelname)s %(name)s: %(message)s%(about)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        ids = requests.get()
        record.about = f" [request{'s' * (len(ids) > 1)} {', '.join(ids)}]" if ids else ""
        return super().formatMessage(record)


class JsonFormatter(logging.Formatter):
    """JSON lines with time, level, logger, process, message and, if present, request_id and exception.

    A line of several requests has a list `request_ids` instead of `request_id`.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
        }
        ids = requests.get()
        if len(ids) == 1:
            line["request_id"] = ids[0]
        elif ids:
            line["request_ids"] = ids
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
