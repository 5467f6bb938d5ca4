"""The watchdog: ends a worker that has work and makes no progress. Runs in a thread of its own."""

import asyncio
import logging
import os
import threading
from collections.abc import Callable

from workers.encoding import Service

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.5


class Watchdog:
    """Calls `end` after `seconds` without an engine step while there is work, or with a stuck event loop.

    Busy is not dead: an engine that makes steps has all the time it needs. It counts
    checks, not seconds: a process that was suspended and resumed is not stuck.
    """

    def __init__(
        self,
        service: Service,
        seconds: float,
        end: Callable[[], None] | None = None,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._service = service
        self._seconds = seconds
        self._most_looks = max(2, round(seconds / look_seconds))
        self._look_seconds = look_seconds
        self._end = end or _end_process
        self._closed = threading.Event()
        self._turns = 0

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Watch from now on, until `close`."""
        self._tick(loop)
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._turns += 1
        if not self._closed.is_set():
            loop.call_later(self._look_seconds, self._tick, loop)

    def _watch(self) -> None:
        steps = turns = -1
        idle_looks = stuck_looks = 0
        while not self._closed.wait(self._look_seconds):
            now_steps, now_turns = self._service.steps, self._turns
            idle_looks = idle_looks + 1 if self._service.busy and now_steps == steps else 0
            stuck_looks = stuck_looks + 1 if now_turns == turns else 0
            steps, turns = now_steps, now_turns
            if max(idle_looks, stuck_looks) >= self._most_looks:
                what = (
                    "the engine has work but makes no step"
                    if idle_looks > stuck_looks
                    else "the event loop is stuck"
                )
                logger.critical("%s for %g s; this worker ends, to be started again", what, self._seconds)
                self._end()
                return


def _end_process() -> None:
    # Nothing that hangs is asked to end in order. The kernel ends the engine with us (`die_with_parent`).
    os._exit(1)
