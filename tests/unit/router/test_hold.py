"""What is held ends: each request once and in time, and nothing is left behind, whatever replicas do."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Sequence
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from router.errors import Internal, TimedOut, Unavailable
from router.items import Gather
from router.pool import breaker
from router.pool import replica as replica_module
from router.pool.hold import Hold
from router.pool.pool import Pool
from router.pool.queue import PoolQueue
from tests.unit.router.apps import info
from tests.unit.router.items import make_request
from tests.unit.router.test_pool_properties import OUTCOMES, Scripted, has_its_own_results

SECONDS = 0.01


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_each_is_held_for_as_long_and_by_one_timer() -> None:
    clock, over = Clock(), list[Gather]()
    hold = Hold(10.0, clock, over.append)
    one, two, three = (make_request([1, 1]) for _ in range(3))
    hold.begin([])
    assert hold._timer is None
    hold.begin(one.items)
    timer = hold._timer
    clock.now = 4.0
    hold.begin([*two.items, *one.items])
    hold.begin(three.items)
    assert hold._timer is timer
    hold.forget(three)
    clock.now = 9.99
    hold._due()
    assert over == []
    assert hold._timer is not None, "a timer that is early is set again"
    clock.now = 10.0
    hold._due()
    assert over == [one]
    clock.now = 14.0
    hold._due()
    assert over == [one, two]
    assert hold._timer is None


async def test_what_is_held_no_more_has_no_timer() -> None:
    over = list[Gather]()
    hold = Hold(SECONDS, asyncio.get_running_loop().time, over.append)
    hold.begin(make_request([1]).items)
    hold.end()
    assert hold._timer is None
    hold.begin(make_request([1]).items)
    hold.end()
    await asyncio.sleep(3 * SECONDS)
    assert over == []


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


async def run(steps: Sequence[str], script: list[str]) -> list[Gather]:
    """See requests through a pool whose replicas come and go, and in the end go; all of them have ended."""
    clock = asyncio.get_running_loop().time
    outcomes = iter(script)
    members = [Scripted(f"r:{number}", 2, outcomes, Counter()) for number in range(2)]
    pool = Pool("retrieval", [], PoolQueue(10**6, 10**6), 8, 4, clock, hold_seconds=SECONDS)
    for one in members:
        one.changed = pool.replicas_changed
    pool.set_replicas(members)
    ended: list[Gather] = []
    gathers: list[Gather] = []

    def finished(gather: Gather) -> None:
        assert gather not in ended
        ended.append(gather)
        if gather.error is not None:
            pool.forget(gather.items)

    for number, step in enumerate(steps):
        one = members[number % 2]
        match step:
            case "ask" | "ask bulk":
                gather = make_request([1, 4, 4], bulk="bulk" in step, now=clock(), finished=finished)
                with contextlib.suppress(Unavailable):
                    pool.check_room(gather.items, gather.deadline)
                    gathers.append(gather)
                    pool.admit(gather.items)
            case "leave" if gathers:
                gathers[number % len(gathers)].fail(TimedOut("the client has left"), clock())
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
    async with asyncio.timeout(5):
        while len(ended) < len(gathers) or pool.in_flight:  # noqa: ASYNC110
            await asyncio.sleep(SECONDS / 4)
    assert (pool.queue.items, pool.queue.tokens) == (0, 0)
    assert pool._hold._until == {}
    # One that is left over from those who have gone ends by itself.
    await asyncio.sleep(2 * SECONDS)
    assert pool._hold._timer is None
    return gathers


@settings(max_examples=150, deadline=None)
@given(
    steps=st.lists(st.sampled_from(STEPS), max_size=40),
    script=st.lists(st.sampled_from(OUTCOMES), max_size=25),
)
def test_every_request_that_was_let_in_ends_whatever_comes_and_goes(
    steps: list[str], script: list[str]
) -> None:
    with patch.object(replica_module, "PAUSE_SECONDS", 0.0), patch.object(breaker, "OPEN_SECONDS", 0.0):
        gathers = asyncio.run(run(steps, script))
    for gather in gathers:
        if gather.error is None:
            assert has_its_own_results(gather)
        else:
            assert isinstance(gather.error, Internal | Unavailable | TimedOut)
            assert "the router failed" not in str(gather.error)
