"""Sends the load of one process: requests when they are due, replies checked and recorded."""

import asyncio
import io
import logging
import random
import time
from collections.abc import AsyncIterator
from itertools import count

import aiohttp
import psutil

from triptych.loadtests.arrivals import due_times
from triptych.loadtests.assignment import Done, Load, Plan
from triptych.loadtests.checks import Checker, Outcome, unanswered
from triptych.loadtests.dialects import Dialect, Target
from triptych.loadtests.golden import Golden
from triptych.loadtests.histogram import Counts, add, percentile
from triptych.loadtests.recording import Recorder, Samples, Timeline
from triptych.loadtests.results import UNSENT, Process, Segment
from triptych.loadtests.scenario import Request, Scenario
from triptych.loadtests.traffic import Traffic

LATE_SHARE = 0.99

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
        golden = Golden.load(io.BytesIO(plan.golden))
        self._traffic = Traffic(
            Scenario.model_validate_json(plan.scenario),
            plan.seed,
            process=plan.process,
            processes=plan.processes,
            calibration=plan.calibration,
            golden=golden.texts,
        )
        self._checker = Checker(Dialect(plan.target), golden)
        self._recorder: Recorder | None = None
        self._begin = 0.0

    def take(self) -> Samples:
        """What was recorded since the last call."""
        return self._recorder.take() if self._recorder else Samples([], {})

    async def run(self, load: Load) -> Done:
        """Go through the segments of `load`."""
        timeline = Timeline(load.segments, load.interval)
        recorder = self._recorder = Recorder(timeline)
        self._begin = time.monotonic() + load.delay
        sending: set[asyncio.Task[None]] = set()
        itself, processes = psutil.Process(), []
        async with asyncio.TaskGroup() as group:
            ticking = group.create_task(self._tick(recorder, load.interval))
            for start, segment in zip(timeline.begins, load.segments, strict=True):
                await self._sleep_until(start)
                # The next calls measure from here.
                itself.cpu_percent()
                psutil.cpu_percent()
                late: Counts = {}
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
                        add(late, self._now() - due)
                        task = group.create_task(self._send(request, recorder, due))
                        sending.add(task)
                        task.add_done_callback(sending.discard)
                await self._sleep_until(start + segment.seconds)
                processes.append(
                    Process(
                        name=self._name,
                        cpu=itself.cpu_percent() / 100,
                        late=percentile(late, LATE_SHARE) if late else 0.0,
                        machine_cpu=psutil.cpu_percent() / 100,
                    )
                )
            if sending:
                # As long as a request may take. A reply that trickles would never end; it counts as failed.
                await asyncio.wait(sending, timeout=self._plan.target.timeout + 5)
            for task in (*sending, ticking):
                task.cancel()
        return Done(processes=processes, compared=self._checker.compared)

    async def exchange(self, request: Request) -> tuple[Outcome, float]:
        """Send a request and check the reply; also the moment at which it was in."""
        call = self._checker.dialect.encode(request)
        try:
            async with self._session.post(
                call.url, data=call.body, headers=call.headers, allow_redirects=False
            ) as response:
                body = await response.read()
        except (OSError, aiohttp.ClientError) as error:
            return unanswered(error), time.monotonic()
        ended = time.monotonic()
        return self._checker.judge(request, response.status, response.headers, body), ended

    async def _due(
        self, segment: Segment, start: float, draw: random.Random
    ) -> AsyncIterator[tuple[Request, float]]:
        """The requests of a segment, each when it is due, in seconds since the load's start."""
        plan = self._plan
        for due in due_times(segment, plan.arrivals, plan.process, plan.processes, draw):
            # Made before it is due, so that making it delays nothing.
            request = self._traffic.any()
            # Also when late: replies and heartbeats need the processor too.
            await self._sleep_until(start + due)
            yield request, start + due

    async def _send(self, request: Request, recorder: Recorder, due: float) -> None:
        """Send a request, and record what became of it."""
        flow, started = request.flow.name, self._now()
        try:
            outcome, ended = await self.exchange(request)
        except asyncio.CancelledError:
            recorder.failed(flow, due, "timeout", "the reply had not ended when the load was over")
            raise
        except Exception as error:
            log.exception("a request failed unexpectedly. This is a bug.")
            outcome, ended = Outcome("harness failed", repr(error)), 0.0
        if outcome.kind:
            recorder.failed(flow, due, outcome.kind, outcome.detail)
            return
        ended -= self._begin
        times = {**outcome.clocks, "total": ended - due, "service": ended - started}
        recorder.answered(flow, due, ended, len(request.inputs), outcome.tokens, times)

    async def _tick(self, recorder: Recorder, interval: float) -> None:
        for number in count(1):
            # Just before an interval ends, so that it still counts there.
            await self._sleep_until(number * interval - 1e-3)
            recorder.tick(self._now())

    def _now(self) -> float:
        """Seconds since the load's start."""
        return time.monotonic() - self._begin

    async def _sleep_until(self, moment: float) -> None:
        await asyncio.sleep(max(0.0, moment - self._now()))
