"""Engine steps: counted across processes, and limited in duration."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triptych.workers.plugin.engine_steps import (
    MIN_TOKENS,
    STEP_SECONDS,
    STEPS_FILE,
    StepCounter,
    StepLimit,
    install,
)


def test_counter_is_shared_between_processes() -> None:
    counter = StepCounter()
    code = "import sys; from triptych.workers.plugin.engine_steps import StepCounter; "
    code += "StepCounter(sys.argv[1]).add()"
    for count in (1, 2):
        subprocess.run([sys.executable, "-c", code, counter.path], check=True)
        assert counter.steps == count


@given(
    most=st.integers(1, 100_000),
    work=st.lists(st.tuples(st.integers(1, 100_000), st.floats(1e-6, 1.0)), max_size=30),
)
def test_limit_stays_within_bounds(most: int, work: list[tuple[int, float]]) -> None:
    limit = StepLimit(most)
    for wanted, seconds_per_token in work:
        tokens = min(wanted, limit.tokens)
        limit.observe(tokens, tokens * seconds_per_token)
        assert min(MIN_TOKENS, most) <= limit.tokens <= most


@pytest.mark.parametrize("rate", [200, 1_000, 50_000, 1_000_000])
def test_full_steps_approach_the_duration(rate: int) -> None:
    limit = StepLimit(8192)
    for _ in range(20):
        limit.observe(limit.tokens, limit.tokens / rate)
    assert limit.tokens == 8192 or STEP_SECONDS / 2 <= limit.tokens / rate <= STEP_SECONDS


def test_small_steps_do_not_raise_limit() -> None:
    limit = StepLimit(8192)
    for _ in range(100):
        limit.observe(5, 0.001)
    assert limit.tokens == MIN_TOKENS


class Waiting(list[SimpleNamespace]):
    """vLLM's queue of waiting requests."""

    def peek_request(self) -> SimpleNamespace:
        return self[0]


class Scheduler:
    """The part of vLLM's scheduler that is patched. `schedule` returns the limits of step and prompt."""

    def __init__(self, *, chunked: bool = True, running: int = 0, waiting: tuple[int, ...] = ()) -> None:
        self.scheduler_config = SimpleNamespace(
            enable_chunked_prefill=chunked, long_prefill_token_threshold=0
        )
        self.max_num_scheduled_tokens = 1024
        self.running = [None] * running
        self.waiting = Waiting(SimpleNamespace(priority=priority) for priority in waiting)

    def schedule(self) -> tuple[int, int]:
        return self.max_num_scheduled_tokens, self.scheduler_config.long_prefill_token_threshold

    def update_from_output(self, output: SimpleNamespace) -> None: ...


@pytest.fixture
def patched(monkeypatch: pytest.MonkeyPatch) -> type[Scheduler]:
    monkeypatch.delenv(STEPS_FILE, raising=False)

    class Patched(Scheduler): ...

    install(Patched)
    return Patched


def step(scheduler: Scheduler, tokens: int = 0) -> tuple[int, int]:
    limits = scheduler.schedule()
    scheduler.update_from_output(SimpleNamespace(total_num_scheduled_tokens=tokens))
    return limits


@pytest.mark.parametrize(
    ("running", "waiting", "share"),
    [(0, (), 0), (1, (), 0), (1, (0,), 32), (3, (0, 1), 16), (1, (1,), 0), (0, (0,), 0)],
)
def test_waiting_query_gets_equal_share(
    patched: type[Scheduler], running: int, waiting: tuple[int, ...], share: int
) -> None:
    assert step(patched(running=running, waiting=waiting)) == (MIN_TOKENS, share)


def test_share_ends_with_the_wait(patched: type[Scheduler]) -> None:
    scheduler = patched(running=1, waiting=(0,))
    assert step(scheduler)[1] > 0
    scheduler.waiting.clear()
    assert step(scheduler)[1] == 0


def test_unchunked_prompt_is_not_limited(patched: type[Scheduler]) -> None:
    assert step(patched(chunked=False, running=1, waiting=(0,))) == (1024, 0)


def test_empty_steps_are_not_counted(patched: type[Scheduler], monkeypatch: pytest.MonkeyPatch) -> None:
    counter = StepCounter()
    monkeypatch.setenv(STEPS_FILE, counter.path)
    scheduler = patched()
    for tokens in (0, 5, 0, 7):
        step(scheduler, tokens)
    assert counter.steps == 2
