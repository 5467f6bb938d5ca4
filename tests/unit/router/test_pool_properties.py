"""Properties of a whole pool with failing replicas: every job ends once, with its results or an error."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import cycle
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.clock import run_without_waiting
from tests.fakes.hang_guard import hang_guard
from tests.unit.router.apps import info
from tests.unit.router.items import NEVER, dispatcher, encode, make_request
from triptych.router.errors import CrashesWorker, Internal, RouterError, TimedOut, Unavailable
from triptych.router.items import Batch, Item, Job
from triptych.router.pool import call
from triptych.router.pool.breaker import FAILURES_UNTIL_OPEN
from triptych.router.pool.call import Declined, Deliver, ReplicaFailed
from triptych.router.pool.dispatcher import MAX_RETRIES
from triptych.router.pool.pool import Pool
from triptych.router.pool.replica import Replica, State
from triptych.workers.shared import contract

OUTCOMES = ("done", "failed", "half", "lost", "overloaded", "draining", "rejected", "item")
# Outcomes that use no try.
FREE = ("overloaded", "draining")


class Scripted(Replica):
    """A replica with scripted outcomes; after the script it succeeds."""

    def __init__(self, name: str, lanes: int, script: Iterator[str], sent: Counter[Item]) -> None:
        super().__init__(name, "retrieval", lanes)
        self.free = 0
        self._script = script
        self._sent = sent

    async def encode(self, batch: Batch, deliver: Deliver) -> None:
        assert self.lanes_in_use <= self.lanes
        if batch.suspect:
            assert (len(batch.items), self.lanes_in_use) == (1, 1), "a suspect is not alone"
        outcome = next(self._script, "done")
        self._sent.update(batch.items)
        self.free += outcome in FREE
        await asyncio.sleep(0)
        match outcome:
            case "failed":
                raise ReplicaFailed("scripted")
            case "lost":
                raise ReplicaFailed("scripted", State.SUSPECT, perhaps_dead=True)
            case contract.OVERLOADED | contract.DRAINING | call.REJECTED:
                raise Declined(outcome)
        items = list(reversed(list(enumerate(batch.items))))
        for number, (index, item) in enumerate(items):
            if outcome == "half" and 2 * number >= len(items):
                raise ReplicaFailed("scripted")
            if outcome == "item" and number == 0:
                deliver(item, contract.Failure(index, "internal", "scripted"))
            else:
                deliver(item, result(item, batch.space))
            await asyncio.sleep(0)


def result(item: Item, space: str) -> contract.Vector:
    """The unique result of `item` in `space`."""
    assert isinstance(item.wire.content, contract.Text)
    return contract.Vector(0, item.cost, (1,), f"{id(item.job)} {item.index} {space}".encode())


def has_its_own_results(job: Job) -> bool:
    """Whether every result belongs to its item, all in one vector space."""
    space = job.spaces["retrieval"]
    return job.vectors() == [result(item, space) for item in job.items]


def check_ended(jobs: Sequence[Job], *more: type[RouterError]) -> None:
    """Each job has its results, or an error that replicas, deadlines or one of `more` explain."""
    for job in jobs:
        if job.error is None:
            assert has_its_own_results(job)
        else:
            assert isinstance(job.error, (Internal, Unavailable, TimedOut, *more))
            assert not {"the router failed", "the router is stopping"} & {str(job.error)}


async def run(
    requests: list[tuple[list[int], bool, bool]],
    script: list[str],
    replicas: int,
    lanes: int,
    lives: Sequence[tuple[str, str]] = (("only", "only"),),
    hold_seconds: float = 0.0,
) -> tuple[list[Job], Counter[Item], int]:
    """Run `requests` (costs, bulk, client leaves) through a pool.

    `lives` are the process and vector space of a replica each time that it comes up, in a cycle.
    """
    loop = asyncio.get_running_loop()
    sent: Counter[Item] = Counter()
    steps = iter(script)
    coming = cycle(lives)
    members = [Scripted(f"r:{number}", lanes, steps, sent) for number in range(replicas)]
    pool = Pool(dispatcher(members, 8, 4, loop.time(), hold_seconds), encode, loop.time)

    def changed(member: Scripted) -> None:
        pool.replicas_changed()
        if member.state is not State.READY:
            loop.call_soon(come_up, member)

    def come_up(member: Scripted) -> None:
        instance, space = next(coming)
        member.up(msgspec.structs.replace(info("retrieval"), instance=instance, space=space))

    for member in members:
        member.changed = partial(changed, member)
        come_up(member)
    ended: list[Job] = []
    jobs: list[Job] = []

    def finished(job: Job) -> None:
        assert job not in ended
        ended.append(job)
        if job.error is not None:
            pool.forget(job.items)

    for costs, bulk, leaves in requests:
        job = make_request(costs, bulk=bulk, deadline=NEVER, finished=finished)
        jobs.append(job)
        if not (pool.replicas.up or pool.dispatcher.holds):
            job.fail(pool.dispatcher.unavailable(0.0), 0.0)
            continue
        pool.admit(job.items)
        await asyncio.sleep(0)
        if leaves:
            job.fail(TimedOut("the client has left"), 0.0)
    async with hang_guard():
        while len(ended) < len(jobs) or pool.in_flight:  # noqa: ASYNC110
            await asyncio.sleep(1)
    assert (pool.queue.items, pool.queue.tokens) == (0, 0)
    assert all((member.lanes_in_use, member.tokens_in_flight) == (0, 0) for member in members)
    return jobs, sent, sum(member.free for member in members)


# Of any kind: costs, bulk, and whether the client leaves.
traffic = st.fixed_dictionaries(
    {
        "requests": st.lists(
            st.tuples(
                st.lists(st.integers(1, 10), min_size=1, max_size=8),
                st.booleans(),
                st.sampled_from([False, False, False, True]),
            ),
            min_size=1,
            max_size=8,
        ),
        "replicas": st.integers(1, 3),
        "lanes": st.integers(1, 3),
    }
)


def scripts(*outcomes: str) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(outcomes), max_size=25)


@settings(max_examples=300)
@given(traffic, scripts(*OUTCOMES), st.sampled_from([0.0, 1.0]))
def test_every_job_ends_once(traffic: dict[str, Any], script: list[str], hold_seconds: float) -> None:
    jobs, sent, free = run_without_waiting(run(**traffic, script=script, hold_seconds=hold_seconds))
    check_ended(jobs)
    assert all(times <= 1 + MAX_RETRIES + free for times in sent.values())


@given(traffic, scripts("done", "overloaded"))
def test_overload_fails_no_job(traffic: dict[str, Any], script: list[str]) -> None:
    jobs, _, _ = run_without_waiting(run(**traffic, script=script))
    for job, (_, _, leaves) in zip(jobs, traffic["requests"], strict=True):
        if not leaves:
            assert has_its_own_results(job)


lives = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["old", "new"])), min_size=1, max_size=6)


@settings(max_examples=300)
@given(traffic, scripts(*OUTCOMES, "lost"), lives)
def test_jobs_never_mix_vector_spaces(
    traffic: dict[str, Any], script: list[str], lives: list[tuple[str, str]]
) -> None:
    jobs, _, _ = run_without_waiting(run(**traffic, script=script, lives=lives))
    check_ended(jobs, CrashesWorker)


@given(
    steps=st.lists(st.floats(0.001, 0.3), min_size=1, max_size=10),
    outcome=st.sampled_from(["overloaded", "failed"]),
)
def test_early_timers_strand_no_job(steps: list[float], outcome: str) -> None:
    """Whatever the clock says when a timer fires."""

    async def serve() -> None:
        going, now = cycle(steps), 0.0

        def clock() -> float:
            nonlocal now
            now += next(going)
            return now

        replica = Scripted("r:0", 2, iter([outcome]), Counter())
        # One more failure opens the breaker.
        for moment in range(1 - FAILURES_UNTIL_OPEN, 0):
            replica.breaker.failed(moment, moment)
        pool = Pool(dispatcher([replica], 8, 4, clock()), encode, clock)
        replica.up(info("retrieval"))
        ended = asyncio.Event()
        job = make_request([1], finished=lambda _: ended.set())
        pool.admit(job.items)
        async with hang_guard():
            await ended.wait()
        assert has_its_own_results(job)

    run_without_waiting(serve())
