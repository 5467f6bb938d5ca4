"""What is held ends: each request once and in time, and nothing is left behind, whatever replicas do."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Sequence
from math import inf
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from router.errors import Internal, TimedOut, Unavailable
from router.items import Job
from router.pool import breaker
from router.pool import replica as replica_module
from router.pool.hold import Hold
from router.pool.pool import Pool
from router.pool.queue import PoolQueue
from tests.fakes.hang_guard import hang_guard
from tests.unit.router.apps import info
from tests.unit.router.items import encode, make_request
from tests.unit.router.test_pool_properties import OUTCOMES, Scripted, has_its_own_results

SECONDS = 0.01


def test_each_job_is_held_for_the_same_time() -> None:
    hold = Hold(10.0)
    one, two, three = (make_request([1, 1]) for _ in range(3))
    assert hold.ends_at == inf
    hold.begin(one.items, 0.0)
    hold.begin([*two.items, *one.items], 4.0)
    hold.begin(three.items, 4.0)
    hold.forget(three)
    assert hold.ends_at == 10.0
    assert hold.expired(9.99) == []
    assert hold.expired(10.0) == [one]
    assert hold.ends_at == 14.0
    assert hold.expired(14.0) == [two]
    assert hold.ends_at == inf


def test_nothing_expires_once_a_replica_is_up() -> None:
    hold = Hold(10.0)
    hold.begin(make_request([1]).items, 0.0)
    hold.end()
    assert hold.expired(99.0) == []


def test_the_time_in_which_nobody_could_take_anything_is_no_slowness() -> None:
    """Or what comes while work is held, and just after, would be refused as if it had no chance."""
    queue = PoolQueue(10**6, 10**6)
    queue.admit(make_request([100] * 100).items, 0.0)
    for step in range(1, 41):
        queue.drained(make_request([100]).items[0], step / 10)
    queue.hold()
    # What a replica that stops had, it still finishes.
    queue.drained(make_request([100]).items[0], 10.0)
    queue.check_room(make_request([100]).items, 60.0, deadline=70.0)
    queue.check_any_room("retrieval", 60.0, deadline=70.0)
    queue.release(60.0)
    queue.check_room(make_request([100]).items, 60.5, deadline=70.0)
    for step in range(1, 41):
        queue.drained(make_request([100]).items[0], 60 + step / 10)
    assert queue._rate(64.0) is not None
    assert 900 < (queue._rate(64.0) or 0) < 1100


def test_a_queue_that_was_not_held_keeps_its_rate() -> None:
    queue = PoolQueue(10**6, 10**6)
    queue.admit(make_request([100] * 100).items, 0.0)
    for step in range(1, 41):
        queue.drained(make_request([100]).items[0], step / 10)
    queue.release(4.0)
    assert queue._rate(4.0) is not None


STEPS = ("ask", "ask bulk", "leave", "up", "down", "draining", "wait", "turn", "none", "all")


async def run(steps: Sequence[str], script: list[str]) -> list[Job]:
    """See requests through a pool whose replicas come and go, and in the end go; all of them have ended."""
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
                    pool.check_room(job.items, job.deadline)
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
def test_every_request_that_was_let_in_ends_whatever_comes_and_goes(
    steps: list[str], script: list[str]
) -> None:
    with patch.object(replica_module, "PAUSE_SECONDS", 0.0), patch.object(breaker, "OPEN_SECONDS", 0.0):
        jobs = asyncio.run(run(steps, script))
    for job in jobs:
        if job.error is None:
            assert has_its_own_results(job)
        else:
            assert isinstance(job.error, Internal | Unavailable | TimedOut)
            assert "the router failed" not in str(job.error)
