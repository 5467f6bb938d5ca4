"""Holding work for a pool without replicas."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Sequence
from math import inf
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.hang_guard import hang_guard
from tests.unit.router.apps import info
from tests.unit.router.items import encode, make_request
from tests.unit.router.test_pool_properties import OUTCOMES, Scripted, check_ended
from triptych.router.errors import QueueFull, TimedOut, Unavailable
from triptych.router.items import Job
from triptych.router.pool import breaker
from triptych.router.pool import replica as replica_module
from triptych.router.pool.hold import Hold
from triptych.router.pool.pool import Pool
from triptych.router.pool.queue import PoolQueue

SECONDS = 0.01


def test_jobs_are_held_for_equal_times() -> None:
    hold = Hold(10.0)
    one, two, three = (make_request([1, 1]) for _ in range(3))
    assert hold.ends_at == inf
    hold.begin(one.items, 0.0)
    hold.begin([*two.items, *one.items], 4.0)
    hold.begin(three.items, 4.0)
    hold.forget(three)
    assert hold.ends_at == 10.0
    assert hold.pop_expired(9.99) == []
    assert hold.pop_expired(10.0) == [one]
    assert hold.ends_at == 14.0
    assert hold.pop_expired(14.0) == [two]
    assert hold.ends_at == inf


def test_replica_up_ends_the_hold() -> None:
    hold = Hold(10.0)
    hold.begin(make_request([1]).items, 0.0)
    hold.end()
    assert hold.pop_expired(99.0) == []


@pytest.mark.parametrize("held", [True, False])
def test_held_time_does_not_count_as_slow(held: bool) -> None:
    queue = PoolQueue(10**6, 10**6)
    queue.admit(make_request([100] * 100).items, 0.0)
    drain(queue, 0.0)
    assert refuses(queue, 4.0)
    if held:
        queue.forget_rate()
        # A replica that stops still finishes its batch.
        queue.drained(make_request([100]).items[0], 10.0)
        assert not refuses(queue, 60.0)
    queue.measure_rate(60.0)
    assert refuses(queue, 60.5) != held
    drain(queue, 60.0)
    assert refuses(queue, 64.0)


def drain(queue: PoolQueue, start: float) -> None:
    """Drain 1,000 tokens a second for 4 s."""
    for step in range(1, 41):
        queue.drained(make_request([100]).items[0], start + step / 10)


def refuses(queue: PoolQueue, now: float) -> bool:
    """Whether a request with 10 s is refused; 10,000 tokens wait, and admission allows for half the rate."""
    try:
        queue.check_room(make_request([100]).items, now, deadline=now + 10)
        queue.check_any_room("retrieval", now, deadline=now + 10)
    except QueueFull:
        return True
    return False


STEPS = ("ask", "ask bulk", "leave", "up", "down", "draining", "wait", "turn", "none", "all")


async def run(steps: Sequence[str], script: list[str]) -> list[Job]:
    """Run jobs through a pool whose replicas come and go, and in the end are gone."""
    clock = asyncio.get_running_loop().time
    outcomes = iter(script)
    members = [Scripted(f"r:{number}", 2, outcomes, Counter()) for number in range(2)]
    pool = Pool("retrieval", [], PoolQueue(10**6, 10**6), encode, 8, 4, clock, hold_seconds=SECONDS)
    for one in members:
        one.changed = pool.replicas_changed
    pool.set_replicas(members)
    ended: list[Job] = []
    jobs: list[Job] = []

    def finished(job: Job) -> None:
        assert job not in ended
        ended.append(job)
        if job.error is not None:
            pool.forget(job.items)

    for number, step in enumerate(steps):
        one = members[number % 2]
        match step:
            case "ask" | "ask bulk":
                job = make_request([1, 4, 4], bulk="bulk" in step, now=clock(), finished=finished)
                with contextlib.suppress(Unavailable):
                    pool.dispatcher.check_room(job.items, clock(), job.deadline)
                    jobs.append(job)
                    pool.admit(job.items)
            case "leave" if jobs:
                jobs[number % len(jobs)].fail(TimedOut("the client has left"), clock())
            case "up":
                one.up(info("retrieval"))
            case "down":
                one.down("scripted", gone=True)
            case "draining":
                one.draining()
            case "wait":
                await asyncio.sleep(SECONDS / 3)
            case "turn":
                await asyncio.sleep(0)
            case "none":
                pool.set_replicas([])
            case "all":
                pool.set_replicas(members)
    for one in members:
        one.down("scripted", gone=True)
    async with hang_guard():
        while len(ended) < len(jobs) or pool.in_flight:  # noqa: ASYNC110
            await asyncio.sleep(SECONDS / 4)
    assert (pool.queue.items, pool.queue.tokens) == (0, 0)
    return jobs


@settings(max_examples=150, deadline=None)
@given(
    steps=st.lists(st.sampled_from(STEPS), max_size=40),
    script=st.lists(st.sampled_from(OUTCOMES), max_size=25),
)
def test_every_held_job_ends_once(steps: list[str], script: list[str]) -> None:
    with patch.object(replica_module, "PAUSE_SECONDS", 0.0), patch.object(breaker, "OPEN_SECONDS", 0.0):
        check_ended(asyncio.run(run(steps, script)))
