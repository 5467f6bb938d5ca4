"""Sends the load of one process: requests when they are due, replies checked and recorded."""

import asyncio
import io
import logging
import random
import time
from collections.abc import AsyncIterator, Callable
from itertools import count

import aiohttp

from triptych.loadtests.arrivals import due_times
from triptych.loadtests.assignment import Done, Load, Plan
from triptych.loadtests.checks import Checker
from triptych.loadtests.dialects import Dialect, Target
from triptych.loadtests.golden import GOLDEN_TEXTS, Golden
from triptych.loadtests.histogram import add
from triptych.loadtests.monitor import Monitor
from triptych.loadtests.outcomes import Outcome, judged, unanswered
from triptych.loadtests.recording import Recorder, Samples, Timeline
from triptych.loadtests.results import UNSENT, Segment
from triptych.loadtests.scenario import Request, Scenario
from triptych.loadtests.traffic import Traffic

log = logging.getLogger(__name__)


def session_for(target: Target) -> aiohttp.ClientSession:
    """The connections to a target: as many as there are open requests."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=target.timeout, sock_read=target.timeout)
    connector = aiohttp.TCPConnector(limit=0, ssl=target.verify)
    return aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar())


class Generator:
    """Sends one process's part of the load. `name` is for the report."""

    def __init__(self, plan: Plan, name: str, session: aiohttp.ClientSession) -> None:
        self._plan, self._name, self._session = plan, name, session
        golden = Golden.load(io.BytesIO(plan.golden)) if plan.golden else None
        self._traffic = Traffic(
            Scenario.model_validate_json(plan.scenario),
            plan.seed,
            process=plan.process,
            processes=plan.processes,
            calibration=plan.calibration,
            golden=GOLDEN_TEXTS if golden else None,
        )
        self._dialect = Dialect(plan.target)
        self._checker = Checker(golden)
        self._recorder: Recorder | None = None
        self._begin = 0.0

    def take(self) -> Samples:
        """What was recorded since the last call."""
        return self._recorder.take() if self._recorder else Samples([], {})

    async def run(self, load: Load) -> Done:
        """Go through the segments of `load`."""
        timeline = Timeline(load.segments, load.interval)
        recorder = self._recorder = Recorder(timeline)
        begin = self._begin = time.monotonic() + load.delay
        sending: set[asyncio.Task[None]] = set()

        ticks = _every(load.interval, begin, lambda: recorder.tick(self._now()))
        processes = []
        async with asyncio.TaskGroup() as group:
            ticking = group.create_task(ticks)
            for start, segment in zip(timeline.begins, load.segments, strict=True):
                await _sleep_until(begin + start)
                monitor = Monitor()
                # The tries of a search are loads of their own, and have to differ by chance.
                draw = random.Random(f"{self._plan.seed} {load.number} {self._plan.process} {start}")
                async for request, due in self._due(segment, start, draw):
                    in_flight = recorder.in_flight
                    # Counted before its task starts, or more than `plan.in_flight` could get in.
                    recorder.sent(request.flow.name, due)
                    if in_flight >= self._plan.in_flight:
                        detail = f"{in_flight} requests of this process were in flight (--in-flight)"
                        recorder.failed(request.flow.name, due, UNSENT, detail)
                    else:
                        add(monitor.late, self._now() - due)
                        task = group.create_task(self._send(request, recorder, due))
                        sending.add(task)
                        task.add_done_callback(sending.discard)
                await _sleep_until(begin + start + segment.seconds)
                processes.append(monitor.read(self._name))
            if sending:
                # As long as a request may take. A reply that trickles would never end; it counts as failed.
                await asyncio.wait(sending, timeout=self._plan.target.timeout + 5)
            for task in (*sending, ticking):
                task.cancel()
        return Done(processes=processes, compared=self._checker.compared)

    async def exchange(self, request: Request) -> tuple[Outcome, float]:
        """Send a request and check the reply; also the moment at which it was in."""
        call = self._dialect.encode(request)
        try:
            async with self._session.post(
                call.url, data=call.body, headers=call.headers, allow_redirects=False
            ) as response:
                body = await response.read()
        except (OSError, aiohttp.ClientError) as error:
            return unanswered(error), time.monotonic()
        ended = time.monotonic()
        headers = response.headers
        return judged(self._dialect, self._checker, request, response.status, headers, body), ended

    async def _due(
        self, segment: Segment, start: float, draw: random.Random
    ) -> AsyncIterator[tuple[Request, float]]:
        """The requests of a segment, each when it is due, in seconds since the load's start."""
        plan = self._plan
        for due in due_times(segment, plan.arrivals, plan.process, plan.processes, draw):
            # Made before it is due, so that making it delays nothing.
            request = self._traffic.any()
            # Also when late: replies and heartbeats need the processor too.
            await _sleep_until(self._begin + start + due)
            yield request, start + due

    async def _send(self, request: Request, recorder: Recorder, due: float) -> None:
        """Send a request, and record what became of it."""
        started = self._now()
        try:
            outcome, ended = await self.exchange(request)
        except asyncio.CancelledError:
            recorder.failed(
                request.flow.name, due, "timeout", "the reply had not ended when the load was over"
            )
            raise
        except Exception as error:
            log.exception("a request failed unexpectedly. This is a bug.")
            outcome, ended = Outcome("harness failed", repr(error)), 0.0
        if outcome.kind:
            recorder.failed(request.flow.name, due, outcome.kind, outcome.detail)
            return
        ended -= self._begin
        times = {**outcome.clocks, "total": ended - due, "service": ended - started}
        recorder.answered(request.flow.name, due, ended, len(request.inputs), outcome.tokens, times)

    def _now(self) -> float:
        return time.monotonic() - self._begin


async def _every(seconds: float, begin: float, act: Callable[[], None]) -> None:
    for number in count(1):
        # Just before an interval ends, so that it still counts there.
        await _sleep_until(begin + number * seconds - 1e-3)
        act()


async def _sleep_until(moment: float) -> None:
    await asyncio.sleep(max(0.0, moment - time.monotonic()))
