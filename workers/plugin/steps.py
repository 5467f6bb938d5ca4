"""Engine steps: counted where the worker can read them, and kept short. Runs inside the engine's process.

Wraps two methods of vLLM's scheduler, `schedule` and `update_from_output`, and sets two of its limits before
each step, `max_num_scheduled_tokens` and `long_prefill_token_threshold`. Read in vLLM 0.25.1, 0.32 and 0.33.
"""

import ctypes
import mmap
import os
import time
from collections import deque
from collections.abc import Callable
from typing import Any

STEPS_FILE = "TRIPTYCH_ENGINE_STEPS"
"""Environment variable: the file in which the engine counts its steps."""

# A query waits for the step under way and then for its own: about a second in all.
STEP_SECONDS = 0.5
# Tokens of the first step, and the smallest limit.
FEWEST_TOKENS = 64


class StepCounter:
    """A number in shared memory: written by the engine's process, read by the worker's."""

    def __init__(self, path: str | None = None) -> None:
        """Open the counter at `path`; None makes a new one, which other processes open by `path`."""
        self._file = os.memfd_create("engine-steps") if path is None else os.open(path, os.O_RDWR)
        if path is None:
            os.truncate(self._file, 8)
        # A child that is spawned inherits no descriptors, but may open the parent's.
        self.path = path or f"/proc/{os.getpid()}/fd/{self._file}"
        self._number = ctypes.c_uint64.from_buffer(mmap.mmap(self._file, 8))

    @property
    def steps(self) -> int:
        """Steps so far."""
        return self._number.value

    def add(self) -> None:
        """Count one more step."""
        self._number.value += 1


class StepLimit:
    """How many tokens the next step may take so that it lasts `STEP_SECONDS` at most (pure).

    A chunk of a long prompt costs more the more of the prompt lies before it, and a CPU is a thousand times
    slower than a GPU, so no fixed number fits. The limit grows only by steps that nearly reached it.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.tokens = min(FEWEST_TOKENS, most)

    def observe(self, tokens: int, seconds: float) -> None:
        """A step of `tokens` took `seconds`."""
        if seconds > STEP_SECONDS:
            self.tokens = min(self._most, max(FEWEST_TOKENS, int(tokens * STEP_SECONDS / seconds)))
        elif seconds < STEP_SECONDS / 2 and 2 * tokens >= self.tokens:
            self.tokens = min(self._most, 2 * self.tokens)


class _Pacer:
    """The counter and the limit of one scheduler."""

    def __init__(self, scheduler: Any) -> None:
        path = os.environ.get(STEPS_FILE)
        self._counter = StepCounter(path) if path else None
        # Without chunks a prompt has to fit into one step, however long that takes.
        chunked = scheduler.scheduler_config.enable_chunked_prefill
        self._limit = StepLimit(scheduler.max_num_scheduled_tokens) if chunked else None
        # vLLM may schedule a step while the one before it still runs.
        self._scheduled: deque[float] = deque()
        self._done = 0.0

    def before(self, scheduler: Any) -> None:
        """Set the limits of the step that is about to be scheduled."""
        if self._limit is None:
            return
        scheduler.max_num_scheduled_tokens = self._limit.tokens
        # vLLM gives tokens to prompts that it has begun before those that wait, so a long prompt would take
        # every step whole until it ends. While a query waits, each of them leaves it an equal part.
        waiting = scheduler.waiting
        urgent = bool(waiting) and waiting.peek_request().priority == 0
        shares = len(scheduler.running) + 1
        scheduler.scheduler_config.long_prefill_token_threshold = (
            max(1, self._limit.tokens // shares) if urgent and shares > 1 else 0
        )

    def scheduled(self) -> None:
        """The step has been scheduled."""
        self._scheduled.append(time.monotonic())

    def finished(self, tokens: int) -> None:
        """The oldest step that was scheduled is finished."""
        now = time.monotonic()
        began = max(self._scheduled.popleft(), self._done)
        self._done = now
        if tokens:
            if self._counter is not None:
                self._counter.add()
            if self._limit is not None:
                self._limit.observe(tokens, now - began)


def install() -> None:
    """Have every scheduler of this process counted and paced."""
    from vllm.v1.core.sched.scheduler import Scheduler

    Scheduler.schedule = _scheduling(Scheduler.schedule)  # type: ignore[method-assign]
    Scheduler.update_from_output = _finishing(Scheduler.update_from_output)  # type: ignore[method-assign]


def _scheduling(schedule: Callable[..., Any]) -> Callable[..., Any]:
    def paced(scheduler: Any, *arguments: Any, **options: Any) -> Any:
        pacer = _pacer_of(scheduler)
        pacer.before(scheduler)
        output = schedule(scheduler, *arguments, **options)
        pacer.scheduled()
        return output

    return paced


def _finishing(update: Callable[..., Any]) -> Callable[..., Any]:
    def counted(scheduler: Any, scheduler_output: Any, *arguments: Any, **options: Any) -> Any:
        _pacer_of(scheduler).finished(scheduler_output.total_num_scheduled_tokens)
        return update(scheduler, scheduler_output, *arguments, **options)

    return counted


def _pacer_of(scheduler: Any) -> _Pacer:
    pacer: _Pacer | None = getattr(scheduler, "_triptych_pacer", None)
    if pacer is None:
        pacer = scheduler._triptych_pacer = _Pacer(scheduler)
    return pacer
