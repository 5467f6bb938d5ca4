"""The watchdog: ends a stuck worker, from a thread of its own."""

import asyncio
import logging
import os
import threading
from collections.abc import Callable

from triptych.workers.vllm_engine import Engine

logger = logging.getLogger(__name__)

CHECK_SECONDS = 0.5


def _end_process() -> None:
    # No orderly shutdown, which could hang too. The kernel ends the engine with us (`die_with_parent`).
    os._exit(1)


class Watchdog:
    """Calls `end` if for `seconds` the engine has work but makes no step, or the event loop is stuck.

    A busy engine that makes steps may take any time. The watchdog counts checks instead of seconds, so a
    process that was suspended and resumed does not look stuck.
    """

    def __init__(
        self,
        engine: Engine,
        seconds: float,
        end: Callable[[], None] = _end_process,
        check_seconds: float = CHECK_SECONDS,
    ) -> None:
        self._engine, self._end = engine, end
        self._seconds, self._check_seconds = seconds, check_seconds
        self._max_checks = max(2, round(seconds / check_seconds))
        self._closed = threading.Event()
        self._ticks = 0

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Watch until `close`."""
        self._tick(loop)
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._ticks += 1
        if not self._closed.is_set():
            loop.call_later(self._check_seconds, self._tick, loop)

    def _watch(self) -> None:
        last_steps = last_ticks = -1
        engine_checks = loop_checks = 0
        while not self._closed.wait(self._check_seconds):
            steps, ticks = self._engine.steps, self._ticks
            engine_checks = engine_checks + 1 if self._engine.busy and steps == last_steps else 0
            loop_checks = loop_checks + 1 if ticks == last_ticks else 0
            last_steps, last_ticks = steps, ticks
            if max(engine_checks, loop_checks) >= self._max_checks:
                stuck = "engine makes no step" if engine_checks > loop_checks else "event loop is stuck"
                logger.critical("the %s for %g s; ending this worker", stuck, self._seconds)
                self._end()
                return
