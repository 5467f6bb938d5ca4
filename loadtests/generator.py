"""Puts the load on, in one process of locust's: requests sent when they are due, replies checked and noted.

Importing locust makes sockets and clocks cooperative in the whole process: only processes of the harness may
import this.
"""

import contextlib
import io
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import gevent
import orjson
from gevent.event import Event
from gevent.pool import Group
from locust.contrib.fasthttp import FastHttpSession, LocustBadStatusCode

from loadtests.arrivals import due_times
from loadtests.checks import Checker
from loadtests.dialects import Unreadable, dialect
from loadtests.golden import GOLDEN_TEXTS, Golden
from loadtests.monitor import Monitor
from loadtests.plan import Done, Load, Plan
from loadtests.recording import Recorder, Samples, Timeline
from loadtests.request import Request
from loadtests.results import UNSENT, WRONG, Clock, Process, Segment
from loadtests.traffic import Traffic

log = logging.getLogger(__name__)

BEAT_SECONDS = 0.05
REPORT_SECONDS = 1.0
# With 0 gevent would come back to the same greenlet up to fifty times before it looks at sockets and timers.
NEXT_ROUND = 1e-7
# A closed loop's user that has failed waits as long as this, lest a server that refuses is asked without end.
PAUSE_AFTER_FAILURE = 0.1


class Generator:
    """One process's part of the load. `name` is its own, for the report."""

    def __init__(self, plan: Plan, name: str, process: int, processes: int) -> None:
        self.plan, self.name = plan, name
        self._process, self._processes = process, processes
        golden = Golden.load(io.BytesIO(plan.golden)) if plan.golden else None
        self._traffic = Traffic(
            plan.read_scenario(),
            plan.seed,
            process=process,
            processes=processes,
            calibration=plan.calibration,
            golden=GOLDEN_TEXTS if golden else None,
        )
        self._dialect = dialect(plan.dialect, plan.target, model=plan.model, key=plan.key)
        self._checker = Checker(golden=golden)
        self._recorder: Recorder | None = None
        self._begin = self._seconds = 0.0
        self._client: FastHttpSession | None = None
        self._has_client = Event()
        self._sending = Group()

    def run(self, load: Load, report: Callable[[Samples], None]) -> Done:
        """Go through the segments of `load`; `report` is given what is new, about once a second.

        The greenlet that this runs in may be killed, which ends all that it sends.
        """
        timeline = Timeline(load.segments, load.interval)
        recorder = self._recorder = Recorder(timeline)
        begin = self._begin = time.monotonic() + load.delay
        self._seconds = timeline.seconds
        watch = _Watch()
        helpers: list[gevent.Greenlet[..., None]] = [
            gevent.spawn(watch.beat),
            gevent.spawn(_every, load.interval, begin, lambda: recorder.tick(self._now())),
            gevent.spawn(_every, REPORT_SECONDS, begin, lambda: report(recorder.take())),
        ]
        processes = []
        try:
            for start, segment in zip(timeline.begins, load.segments, strict=True):
                _sleep_until(begin + start)
                watch.begin()
                if self.plan.loop == "open":
                    # Tries of a search are loads of their own, and are to differ by chance.
                    draw = random.Random(f"{self.plan.seed} {load.number} {self._process} {start}")
                    self._open_loop(segment, start, draw, watch)
                _sleep_until(begin + start + segment.seconds)
                processes.append(watch.read(self.name))
            self._drain(recorder)
        finally:
            # Also one that gets a few bytes now and then, and would never end; it counts as failed.
            self._sending.kill()
            gevent.killall(helpers)
        report(recorder.take())
        return Done(number=load.number, processes=processes, compared=self._checker.compared)

    def lend(self, client: FastHttpSession) -> None:
        """Open loop: send everything by this one."""
        self._client = client
        self._has_client.set()

    def next(self, client: FastHttpSession) -> None:
        """Closed loop: a user sends its next request, and waits as long as the flow says."""
        recorder = self._recorder
        if recorder is None or not 0 <= self._now() < self._seconds:
            gevent.sleep(BEAT_SECONDS)
            return
        request = self._traffic.any()
        due = self._now()
        recorder.sent(request.flow, due)
        good = self._exchange(request, client, recorder, due)
        pause = self._traffic.flows[request.flow].pause_seconds
        gevent.sleep(pause if good else max(pause, PAUSE_AFTER_FAILURE))

    def _now(self) -> float:
        return time.monotonic() - self._begin

    def _open_loop(self, segment: Segment, start: float, draw: random.Random, watch: "_Watch") -> None:
        self._has_client.wait()
        client, recorder = self._client, self._recorder
        assert client is not None
        assert recorder is not None
        times = due_times(segment, self.plan.arrivals, self._process, self._processes, draw)
        for due in times:
            # Made before it is due, so that making it delays nothing.
            request = self._traffic.any()
            # Also when it is late, or those in flight and the heartbeats would never have the processor.
            gevent.sleep(max(NEXT_ROUND, self._begin + start + due - time.monotonic()))
            in_flight = recorder.in_flight
            # Before it has its greenlet, which may be a while, or more would be let in than may be in flight.
            recorder.sent(request.flow, start + due)
            if in_flight >= self.plan.in_flight:
                detail = f"{in_flight} requests of this process were in flight; --in-flight is the limit"
                recorder.failed(request.flow, start + due, UNSENT, detail)
            else:
                watch.late(self._now() - start - due)
                self._sending.spawn(self._exchange, request, client, recorder, start + due)

    def _exchange(self, request: Request, client: FastHttpSession, recorder: Recorder, due: float) -> bool:
        """Send one that is noted as sent, and note what becomes of it; says whether it was answered well."""
        started = self._now()
        try:
            outcome = self._ask(request, client, due)
        except gevent.GreenletExit:
            recorder.failed(request.flow, due, "timeout", "it had no end when the load was over")
            raise
        except Exception as error:
            log.exception("a request ended in an error that nobody foresaw. This is a bug.")
            outcome = _Outcome("harness failed", repr(error))
        if outcome.kind:
            recorder.failed(request.flow, due, outcome.kind, outcome.detail)
        else:
            clocks = outcome.clocks
            clocks["total"], clocks["service"] = outcome.ended - due, outcome.ended - started
            recorder.answered(request.flow, due, outcome.ended, len(request.inputs), outcome.tokens, clocks)
        return not outcome.kind

    def _ask(self, request: Request, client: FastHttpSession, due: float) -> "_Outcome":
        call = self._dialect.encode(request)
        # Bytes are sent as they are; its types do not say so.
        body: Any = call.body
        with client.request(
            "POST", call.url, name=request.flow, data=body, headers=call.headers, catch_response=True
        ) as response:
            ended = self._now()
            meta = response.request_meta
            meta["response_time"] = (ended - due) * 1e3
            outcome = self._judge(request, response, meta["exception"])
            if outcome.kind:
                response.failure(f"{outcome.kind}: {outcome.detail}")
            else:
                response.success()
        outcome.ended = ended
        return outcome

    def _judge(self, request: Request, response: Any, error: BaseException | None) -> "_Outcome":
        if error is not None and not isinstance(error, LocustBadStatusCode):
            return _broken(error)
        body = response.content or b""
        if response.status_code != 200:
            return _Outcome(f"HTTP {response.status_code}", _message(body))
        try:
            reply = self._dialect.decode(request, body)
        except Unreadable as unreadable:
            return _Outcome(f"{WRONG}unreadable", str(unreadable))
        if wrong := self._checker.check(request, reply):
            return _Outcome(wrong, f"in a request of task {request.task}")
        return _Outcome(tokens=reply.tokens or 0, clocks=self._dialect.clocks(response.headers))

    def _drain(self, recorder: Recorder) -> None:
        """Wait for what is in flight, as long as a request may take."""
        with contextlib.suppress(gevent.Timeout), gevent.Timeout(self.plan.timeout + 5):
            while recorder.in_flight:
                gevent.sleep(BEAT_SECONDS)


@dataclass
class _Outcome:
    """What became of a request: the kind of its failure, "" for none, and more about it."""

    kind: str = ""
    detail: str = ""
    tokens: int = 0
    clocks: dict[Clock, float] = field(default_factory=dict)
    ended: float = 0.0


class _Watch:
    """Keeps the monitor of the segment that is under way."""

    def __init__(self) -> None:
        self._monitor = Monitor()

    def begin(self) -> None:
        self._monitor = Monitor()

    def late(self, seconds: float) -> None:
        self._monitor.late(seconds)

    def read(self, name: str) -> Process:
        return self._monitor.read(name)

    def beat(self) -> None:
        while True:
            due = time.monotonic() + BEAT_SECONDS
            gevent.sleep(BEAT_SECONDS)
            self._monitor.beat(time.monotonic(), due)


def _every(seconds: float, begin: float, act: Callable[[], None]) -> None:
    for number in count(1):
        # What ends with an interval still belongs to it.
        _sleep_until(begin + number * seconds - 1e-3)
        act()


def _sleep_until(moment: float) -> None:
    seconds = moment - time.monotonic()
    if seconds > 0:
        gevent.sleep(seconds)


def _broken(error: BaseException) -> _Outcome:
    """Why there was no reply, or not all of it."""
    # geventhttpclient wraps what it would have tried again, such as a timeout, though it is told not to.
    error = getattr(error, "original", None) or error
    match error:
        case TimeoutError():
            return _Outcome("timeout", str(error))
        case ConnectionRefusedError():
            return _Outcome("connection refused", str(error))
        case _:
            return _Outcome("connection lost", f"{type(error).__name__}: {error}")


def _message(body: bytes | None) -> str:
    """What an error's body says, shortened."""
    text = (body or b"").decode(errors="replace")
    try:
        document = orjson.loads(body or b"")
    except orjson.JSONDecodeError:
        return text[:200]
    for name in ("detail", "message", "error"):
        if isinstance(document, dict) and document.get(name):
            return str(document[name])[:200]
    return text[:200]
