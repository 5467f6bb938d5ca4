"""Engine steps: counted over processes, and as long as they may be."""

import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.plugin import steps
from workers.plugin.steps import FEWEST_TOKENS, STEP_SECONDS, STEPS_FILE, StepCounter, StepLimit


def test_another_process_counts_where_this_one_reads() -> None:
    counter = StepCounter()
    code = "import sys; from workers.plugin.steps import StepCounter; StepCounter(sys.argv[1]).add()"
    for count in (1, 2):
        subprocess.run([sys.executable, "-c", code, counter.path], check=True)
        assert counter.steps == count


@given(
    most=st.integers(1, 100_000),
    work=st.lists(st.tuples(st.integers(1, 100_000), st.floats(1e-6, 1.0)), max_size=30),
)
def test_the_limit_stays_within_its_bounds(most: int, work: list[tuple[int, float]]) -> None:
    limit = StepLimit(most)
    for wanted, seconds_per_token in work:
        tokens = min(wanted, limit.tokens)
        limit.observe(tokens, tokens * seconds_per_token)
        assert min(FEWEST_TOKENS, most) <= limit.tokens <= most


@pytest.mark.parametrize("rate", [200, 1_000, 50_000, 1_000_000])
def test_full_steps_come_to_last_about_as_long_as_they_may(rate: int) -> None:
    limit = StepLimit(8192)
    for _ in range(20):
        limit.observe(limit.tokens, limit.tokens / rate)
    assert limit.tokens == 8192 or STEP_SECONDS / 2 <= limit.tokens / rate <= STEP_SECONDS


def test_short_steps_say_nothing_of_long_ones() -> None:
    limit = StepLimit(8192)
    for _ in range(100):
        limit.observe(5, 0.001)
    assert limit.tokens == FEWEST_TOKENS


class Waiting(list[SimpleNamespace]):
    """vLLM's queue of requests that have not begun."""

    def peek_request(self) -> SimpleNamespace:
        return self[0]


@pytest.fixture
def scheduling(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, int]]:
    """Schedules and finishes a step; gives its limits: for the step, and for a prompt that has begun."""
    monkeypatch.delenv(STEPS_FILE, raising=False)

    def limits(scheduler: Any) -> tuple[int, int]:
        its = scheduler.scheduler_config
        return scheduler.max_num_scheduled_tokens, its.long_prefill_token_threshold

    schedule = steps._scheduling(limits)
    finish = steps._finishing(lambda scheduler, output: None)

    def step(scheduler: Any, tokens: int = 0) -> tuple[int, int]:
        found: tuple[int, int] = schedule(scheduler)
        finish(scheduler, SimpleNamespace(total_num_scheduled_tokens=tokens))
        return found

    return step


def scheduler(*, chunked: bool = True, running: int = 0, waiting: tuple[int, ...] = ()) -> SimpleNamespace:
    """One with so many prompts that have begun, and the priorities of those that wait."""
    return SimpleNamespace(
        scheduler_config=SimpleNamespace(enable_chunked_prefill=chunked, long_prefill_token_threshold=0),
        max_num_scheduled_tokens=1024,
        running=[None] * running,
        waiting=Waiting(SimpleNamespace(priority=priority) for priority in waiting),
    )


@pytest.mark.parametrize(
    ("running", "waiting", "share"),
    [(0, (), 0), (1, (), 0), (1, (0,), 32), (3, (0, 1), 16), (1, (1,), 0), (0, (0,), 0)],
)
def test_prompts_that_have_begun_leave_a_waiting_query_an_equal_share(
    scheduling: Callable[..., tuple[int, int]], running: int, waiting: tuple[int, ...], share: int
) -> None:
    assert scheduling(scheduler(running=running, waiting=waiting)) == (FEWEST_TOKENS, share)


def test_the_share_is_given_back_when_no_query_waits(scheduling: Callable[..., tuple[int, int]]) -> None:
    one = scheduler(running=1, waiting=(0,))
    assert scheduling(one)[1] > 0
    one.waiting.clear()
    assert scheduling(one)[1] == 0


def test_a_prompt_that_cannot_be_chunked_is_not_limited(scheduling: Callable[..., tuple[int, int]]) -> None:
    assert scheduling(scheduler(chunked=False, running=1, waiting=(0,))) == (1024, 0)


def test_steps_without_tokens_are_not_counted(
    scheduling: Callable[..., tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = StepCounter()
    monkeypatch.setenv(STEPS_FILE, counter.path)
    one = scheduler()
    for tokens in (0, 5, 0, 7):
        scheduling(one, tokens)
    assert counter.steps == 2
