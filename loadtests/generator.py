"""Sends the load of one process: requests when they are due, replies checked and recorded.

Importing it imports locust, which patches sockets and clocks of the whole process.
"""

import io
import logging
import random
import time
from collections.abc import Callable
from itertools import count

import gevent
from gevent.pool import Group

from triptych.loadtests.arrivals import due_times
from triptych.loadtests.assignment import Done, Load, Plan
from triptych.loadtests.checks import Checker
from triptych.loadtests.exchange import Outcome, connection_pool, exchange, new_session
from triptych.loadtests.golden import GOLDEN_TEXTS, Golden
from triptych.loadtests.monitor import Monitor
from triptych.loadtests.recording import Recorder, Samples, Timeline
from triptych.loadtests.request import Request
from triptych.loadtests.results import UNSENT, Segment
from triptych.loadtests.scenario import Scenario
from triptych.loadtests.traffic import Traffic

log = logging.getLogger(__name__)

BEAT_SECONDS = 0.05
# With 0, gevent would return to the same greenlet up to fifty times before it looks at sockets and timers.
NEXT_ROUND = 1e-7


class Generator:
    """Sends one process's part of the load. `name` is for the report."""

    def __init__(self, plan: Plan, name: str) -> None:
        self._plan, self._name = plan, name
        golden = Golden.load(io.BytesIO(plan.golden)) if plan.golden else None
        self._traffic = Traffic(
            Scenario.model_validate_json(plan.scenario),
            plan.seed,
            process=plan.process,
            processes=plan.processes,
            calibration=plan.calibration,
            golden=GOLDEN_TEXTS if golden else None,
        )
        self._dialect = plan.target.speak()
        self._checker = Checker(golden)
        pool = connection_pool(plan.in_flight, plan.target.timeout, verify=plan.target.verify)
        self._session = new_session(pool)
        self._recorder: Recorder | None = None
        self._begin = 0.0

    def take(self) -> Samples:
        """What was recorded since the last call."""
        return self._recorder.take() if self._recorder else Samples([], {})

    def run(self, load: Load) -> Done:
        """Go through the segments of `load`."""
        timeline = Timeline(load.segments, load.interval)
        recorder = self._recorder = Recorder(timeline)
        begin = self._begin = time.monotonic() + load.delay
        monitor = Monitor()
        sending = Group()

        def beat() -> None:
            while True:
                due = time.monotonic() + BEAT_SECONDS
                gevent.sleep(BEAT_SECONDS)
                monitor.lag(time.monotonic() - due)

        helpers = Group()
        helpers.spawn(beat)
        helpers.spawn(_every, load.interval, begin, lambda: recorder.tick(self._now()))
        processes, machine_cpu = [], []
        try:
            for start, segment in zip(timeline.begins, load.segments, strict=True):
                _sleep_until(begin + start)
                monitor = Monitor()
                # The tries of a search are loads of their own, and have to differ by chance.
                draw = random.Random(f"{self._plan.seed} {load.number} {self._plan.process} {start}")
                self._open_loop(segment, start, draw, recorder, sending, monitor)
                _sleep_until(begin + start + segment.seconds)
                processes.append(monitor.read(self._name))
                machine_cpu.append(monitor.machine_cpu())
            # As long as a request may take.
            sending.join(self._plan.target.timeout + 5)
        finally:
            # A reply that trickles would never end; it counts as failed.
            sending.kill()
            helpers.kill()
        return Done(processes=processes, machine_cpu=machine_cpu, compared=self._checker.compared)

    def _open_loop(
        self,
        segment: Segment,
        start: float,
        draw: random.Random,
        recorder: Recorder,
        sending: Group,
        monitor: Monitor,
    ) -> None:
        plan = self._plan
        for due in due_times(segment, plan.arrivals, plan.process, plan.processes, draw):
            # Made before it is due, so that making it delays nothing.
            request = self._traffic.any()
            # Also when late: replies and heartbeats need the processor too.
            gevent.sleep(max(NEXT_ROUND, self._begin + start + due - time.monotonic()))
            in_flight = recorder.in_flight
            # Counted before its greenlet starts, or more than `plan.in_flight` could get in.
            recorder.sent(request.flow, start + due)
            if in_flight >= plan.in_flight:
                detail = f"{in_flight} requests of this process were in flight (--in-flight)"
                recorder.failed(request.flow, start + due, UNSENT, detail)
            else:
                monitor.late(self._now() - start - due)
                sending.spawn(self._send, request, recorder, start + due)

    def _send(self, request: Request, recorder: Recorder, due: float) -> None:
        """Send a request, and record what became of it."""
        started = self._now()
        try:
            outcome = exchange(self._session, self._dialect, self._checker, request, request.flow)
        except gevent.GreenletExit:
            recorder.failed(request.flow, due, "timeout", "the reply had not ended when the load was over")
            raise
        except Exception as error:
            log.exception("a request failed unexpectedly. This is a bug.")
            outcome = Outcome("harness failed", repr(error))
        if outcome.kind:
            recorder.failed(request.flow, due, outcome.kind, outcome.detail)
            return
        ended = outcome.ended - self._begin
        times = outcome.clocks | {"total": ended - due, "service": ended - started}
        recorder.answered(request.flow, due, ended, len(request.inputs), outcome.tokens, times)

    def _now(self) -> float:
        return time.monotonic() - self._begin


def _every(seconds: float, begin: float, act: Callable[[], None]) -> None:
    for number in count(1):
        # Just before an interval ends, so that it still counts there.
        _sleep_until(begin + number * seconds - 1e-3)
        act()


def _sleep_until(moment: float) -> None:
    gevent.sleep(max(0.0, moment - time.monotonic()))
