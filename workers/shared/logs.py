"""How every process of ours logs: plain or JSON lines, each with the requests that it belongs to.

Imports the standard library only, so that the router can use it too.
"""

import json
import logging
import os
from collections.abc import Iterable
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal

LogFormat = Literal["plain", "json"]

# Set for the processes that vLLM starts; its value is the level.
ENGINE_LOGS_JSON = "TRIPTYCH_ENGINE_LOGS_JSON"
# Enough to find a request by; a batch may be of hundreds.
MOST_REQUESTS = 5

requests: ContextVar[tuple[str, ...]] = ContextVar("requests", default=())
"""The ids of the requests that the current task works for; each line that it logs names them."""


def some(ids: Iterable[str]) -> tuple[str, ...]:
    """The first few of `ids`, each once, and `...` where there are more."""
    found: dict[str, None] = {}
    for each in ids:
        if each not in found:
            if len(found) == MOST_REQUESTS:
                return (*found, "...")
            found[each] = None
    return tuple(found)


def configure(form: LogFormat, level: str, *, processes: bool = False) -> None:
    """Send all that this process logs to stderr, from `level` on; of several `processes`, with its id."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if form == "json" else PlainFormatter(processes=processes))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def configure_engine(form: LogFormat) -> None:
    """Have vLLM's processes, which are yet to start, log in the same form; plain leaves them as they are."""
    if form == "json":
        # vLLM's own handlers, and what they put before each line, would be no JSON.
        os.environ["VLLM_CONFIGURE_LOGGING"] = "0"
        os.environ[ENGINE_LOGS_JSON] = os.environ.get("VLLM_LOGGING_LEVEL", "INFO")


def configure_in_engine() -> None:
    """In a process of vLLM's: what `configure_engine` asked for."""
    if level := os.environ.get(ENGINE_LOGS_JSON):
        configure("json", level)


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
    """One JSON object a line: time, level, logger, process, message; request_id, exception where there are.

    A line that concerns several requests has a list, `request_ids`, instead.
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
