"""Counts engine steps for the worker, and keeps them short. Runs inside the engine's process.

Wraps two methods of vLLM's scheduler, `schedule` and `update_from_output`, and sets two of its limits before
each step, `max_num_scheduled_tokens` and `long_prefill_token_threshold`.
"""

import ctypes
import mmap
import os
import time
from collections import deque
from typing import Any

STEPS_FILE = "TRIPTYCH_ENGINE_STEPS"
"""Environment variable with the path of the step counter."""

# A query waits for the current step and then for its own: about a second.
STEP_SECONDS = 0.5
# The first and the smallest limit.
MIN_TOKENS = 64


class StepCounter:
    """A number in shared memory: the engine's process writes it, the worker reads it."""

    def __init__(self, path: str | None = None) -> None:
        """Open the counter at `path`, or create one, which other processes open by its `path`."""
        self._file = os.memfd_create("engine-steps") if path is None else os.open(path, os.O_RDWR)
        if path is None:
            os.truncate(self._file, 8)
        # A spawned child inherits no file descriptors, but may open its parent's.
        self.path = path or f"/proc/{os.getpid()}/fd/{self._file}"
        self._number = ctypes.c_uint64.from_buffer(mmap.mmap(self._file, 8))

    @property
    def steps(self) -> int:
        return self._number.value

    def add(self) -> None:
        self._number.value += 1


class StepLimit:
    """The tokens of the next step, so that it takes at most `STEP_SECONDS` (pure).

    No fixed number fits: a chunk costs more the longer the prompt before it is, and a CPU is a thousand times
    slower than a GPU. Only steps that use at least half of the limit raise it.
    """

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self.tokens = min(MIN_TOKENS, max_tokens)

    def observe(self, tokens: int, seconds: float) -> None:
        """Adapt the limit to a step of `tokens` that took `seconds`."""
        if seconds > STEP_SECONDS:
            self.tokens = min(self._max_tokens, max(MIN_TOKENS, int(tokens * STEP_SECONDS / seconds)))
        elif seconds < STEP_SECONDS / 2 and 2 * tokens >= self.tokens:
            self.tokens = min(self._max_tokens, 2 * self.tokens)


class _Pacer:
    """Step counter and step limit of one scheduler."""

    def __init__(self, scheduler: Any) -> None:
        path = os.environ.get(STEPS_FILE)
        self._counter = StepCounter(path) if path else None
        # Without chunked prefill, a prompt has to fit into one step.
        chunked = scheduler.scheduler_config.enable_chunked_prefill
        self._limit = StepLimit(scheduler.max_num_scheduled_tokens) if chunked else None
        # vLLM may schedule a step while the previous one still runs.
        self._begun: deque[float] = deque()
        self._done = 0.0

    def before(self, scheduler: Any) -> None:
        """Set the limits of the next step, and note its start."""
        self._begun.append(time.monotonic())
        if self._limit is None:
            return
        scheduler.max_num_scheduled_tokens = self._limit.tokens
        # vLLM schedules running prompts before waiting ones, so a long prompt would fill every step until it
        # ends. While a query waits, running prompts and the query get equal parts.
        waiting, running = scheduler.waiting, len(scheduler.running)
        shared = running and waiting and waiting.peek_request().priority == 0
        threshold = max(1, self._limit.tokens // (running + 1)) if shared else 0
        scheduler.scheduler_config.long_prefill_token_threshold = threshold

    def finished(self, tokens: int) -> None:
        """Count and measure the oldest step that has begun."""
        now = time.monotonic()
        began = max(self._begun.popleft(), self._done)
        self._done = now
        if tokens:
            if self._counter is not None:
                self._counter.add()
            if self._limit is not None:
                self._limit.observe(tokens, now - began)


def install(scheduler_class: Any) -> None:
    """Patch vLLM's `Scheduler`."""
    schedule, update = scheduler_class.schedule, scheduler_class.update_from_output

    def paced_schedule(scheduler: Any, *arguments: Any, **options: Any) -> Any:
        _pacer_of(scheduler).before(scheduler)
        return schedule(scheduler, *arguments, **options)

    def counted_update(scheduler: Any, scheduler_output: Any, *arguments: Any, **options: Any) -> Any:
        _pacer_of(scheduler).finished(scheduler_output.total_num_scheduled_tokens)
        return update(scheduler, scheduler_output, *arguments, **options)

    scheduler_class.schedule = paced_schedule
    scheduler_class.update_from_output = counted_update


def _pacer_of(scheduler: Any) -> _Pacer:
    pacer: _Pacer | None = getattr(scheduler, "_triptych_pacer", None)
    if pacer is None:
        pacer = scheduler._triptych_pacer = _Pacer(scheduler)
    return pacer
