"""Leads the processes that put the load on through the segments of a shape, and adds up what they note.

It is locust's master. Importing it imports locust, which makes sockets and clocks cooperative in the whole
process.
"""

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import gevent
import msgspec
from gevent.queue import Queue
from locust.env import Environment

from loadtests import plan as messages
from loadtests.failed import HarnessFailed
from loadtests.master import SILENT_SECONDS, Master
from loadtests.monitor import MachineMeter
from loadtests.plan import Done, Load, Plan
from loadtests.recording import Samples, Timeline, Total, interval_for
from loadtests.results import Capacity, Measured, Segment
from loadtests.shapes import Shape, until
from loadtests.users import CLASSES

# Between a load's being sent out and its beginning: the messages' way, with much to spare.
DELAY_SECONDS = 0.3
JOIN_SECONDS = 120.0
LOST_SECONDS = 30.0
# locust warns of more users a second, for each process.
USERS_A_SECOND = 100.0


Watch = Callable[[Total, Load, float], None]
"""Called about every second of a load with what has come in, the load, and the seconds since its
beginning."""


class Conductor:
    """Waits for processes to join, then runs loads. `host` and `port` are where they join (0: any port).

    `alive` raises `HarnessFailed` when a process that belongs to this one has ended.
    """

    def __init__(self, plan: Plan, processes: int, host: str, port: int, alive: Callable[[], None]) -> None:
        self._plan, self._processes, self._alive = plan, processes, alive
        self._flows = [flow.name for flow in plan.read_scenario().flows]
        # locust would wait a second for processes to say how many users they have; they do every third.
        os.environ.setdefault("LOCUST_WAIT_FOR_WORKERS_REPORT_AFTER_RAMP_UP", "0")
        environment = Environment(user_classes=[CLASSES[plan.loop]], stop_timeout=plan.timeout)
        self._runner = Master(environment, host, port, processes)
        self.port = self._runner.port
        self._members: dict[str, str] = {}
        self._prepared = 0
        self._done: Queue[Done] = Queue()
        self._broken: str | None = None
        self._total: Total | None = None
        self._number = 0
        self._spawning: gevent.Greenlet[..., None] | None = None
        self._begin: float | None = None
        self.examples: dict[str, str] = {}
        self.compared = 0
        self.stopped = False
        listeners = {
            messages.PREPARED: self._on_prepared,
            messages.SAMPLES: self._on_samples,
            messages.DONE: self._on_done,
            messages.BROKEN: self._on_broken,
        }
        for kind, listener in listeners.items():
            self._runner.register_message(kind, listener)

    @property
    def seconds(self) -> float:
        """Since the first load began; 0 before."""
        return 0.0 if self._begin is None else time.monotonic() - self._begin

    def gather(self) -> None:
        """Wait until all processes have joined and are prepared. Raises `HarnessFailed`."""
        runner, size = self._runner, self._processes
        self._wait(lambda: len(runner.members) == size, JOIN_SECONDS, "to join")
        members = runner.members
        plan = msgspec.msgpack.encode(self._plan)
        for number, member in enumerate(members):
            runner.send_message(messages.PLAN, {"plan": plan, "process": number, "processes": size}, member)
        self._wait(lambda: self._prepared == size, JOIN_SECONDS, "to make their texts")
        # That may have kept them silent, and locust starts nothing with those it has not heard of lately.
        self._wait(lambda: runner.members == members, JOIN_SECONDS, "to be heard of again")
        self._members = members
        if self._plan.loop == "open":
            runner.start(size, size)

    def run(self, shape: Shape, watch: Watch, *, adaptive: bool) -> tuple[list[Measured], Capacity | None]:
        """Go through `shape`; without `adaptive` its segments follow one another without a gap.

        On Ctrl-C that is the end, and what was measured until then is the result. Raises `HarnessFailed`.
        """
        if not adaptive:
            return self._load(list(shape), watch), None
        measured: list[Measured] = []
        try:
            segment = next(shape)
            while True:
                measured += self._load([segment], watch)
                if self.stopped:
                    return measured, None
                segment = shape.send(measured[-1])
        except StopIteration as finished:
            return measured, finished.value

    def close(self) -> None:
        """Send the processes home, whatever they are at."""
        if self._spawning is not None:
            self._spawning.kill()
        self._runner.send_message(messages.ABANDON)
        self._runner.quit()

    def _load(self, segments: Sequence[Segment], watch: Watch) -> list[Measured]:
        interval = interval_for(segments)
        timeline = Timeline(segments, interval)
        total = self._total = Total(timeline, self._flows)
        self._number += 1
        load = Load(
            number=self._number,
            segments=list(segments),
            interval=interval,
            delay=DELAY_SECONDS,
            process=0,
            processes=self._processes,
        )
        self._runner.send_message(messages.LOAD, {"load": msgspec.msgpack.encode(load)})
        begin = time.monotonic() + DELAY_SECONDS
        if self._begin is None:
            self._begin = begin
        began = begin - self._begin
        busy: list[float | None] = []
        done: list[Done] = []
        try:
            self._lead(timeline, begin, busy, lambda: watch(total, load, time.monotonic() - begin))
            if self._plan.loop == "closed":
                self._users(0, 0, time.monotonic())
            done = self._await_done()
        except KeyboardInterrupt:
            self.stopped = True
            segments = until(time.monotonic() - begin, segments)
        self.compared = sum(one.compared for one in done) or self.compared
        self.examples = total.examples | self.examples
        return [
            Measured(
                segment=segment,
                began=began + timeline.begins[number],
                interval=interval,
                intervals=total.segments[number],
                processes=[one.processes[number] for one in done],
                machine_cpu=busy[number] if number < len(busy) else None,
            )
            for number, segment in enumerate(segments)
        ]

    def _lead(
        self, timeline: Timeline, begin: float, busy: list[float | None], look: Callable[[], None]
    ) -> None:
        """Be there while the segments pass: bring in users, and add to `busy` how much the machine was in
        each."""
        for start, segment in zip(timeline.begins, timeline.segments, strict=True):
            self._sleep_until(begin + start, look)
            meter = MachineMeter()
            look()
            if segment.users is not None:
                self._users(*segment.users, begin + start + segment.seconds)
            self._sleep_until(begin + start + segment.seconds, look)
            busy.append(meter.read())

    def _users(self, low: int, high: int, end: float) -> None:
        if self._spawning is not None:
            self._spawning.kill()
        self._spawning = gevent.spawn(self._bring, low, high, end)

    def _bring(self, low: int, high: int, end: float) -> None:
        """Have `low` users as soon as can be, and from then on more or fewer, `high` at the moment `end`."""
        self._runner.start(low, USERS_A_SECOND * self._processes)
        if high != low:
            left = max(1.0, end - time.monotonic())
            self._runner.start(high, abs(high - low) / left)

    def _sleep_until(self, moment: float, look: Callable[[], None]) -> None:
        while (left := moment - time.monotonic()) > 0:
            gevent.sleep(min(left, 1.0))
            self._check()
            look()

    def _await_done(self) -> list[Done]:
        """What the processes say of themselves; all have reported by then."""
        done: list[Done] = []
        limit = time.monotonic() + self._plan.timeout + LOST_SECONDS
        while len(done) < self._processes:
            self._check()
            if time.monotonic() > limit:
                missing = self._processes - len(done)
                raise HarnessFailed(f"{missing} of {self._processes} processes of the harness did not finish")
            if not self._done.empty():
                done.append(self._done.get())
            else:
                gevent.sleep(0.02)
        return sorted(done, key=lambda one: one.processes[0].name)

    def _wait(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        limit = time.monotonic() + seconds
        while not condition():
            self._check()
            if time.monotonic() > limit:
                raise HarnessFailed(f"waited {seconds:g} s for {self._processes} processes {what}")
            gevent.sleep(0.05)

    def _check(self) -> None:
        self._alive()
        if self._broken is not None:
            raise HarnessFailed(f"a process of the harness failed:\n{self._broken}")
        if lost := self._members.keys() - self._runner.members.keys():
            names = ", ".join(sorted(self._members[member] for member in lost))
            raise HarnessFailed(f"nothing was heard of {names} for {SILENT_SECONDS} s")

    def _on_prepared(self, msg: Any, **_: Any) -> None:
        self._prepared += 1

    def _on_samples(self, msg: Any, **_: Any) -> None:
        if self._total is not None and msg.data["number"] == self._number:
            self._total.add(msgspec.msgpack.decode(msg.data["samples"], type=Samples))

    def _on_done(self, msg: Any, **_: Any) -> None:
        self._done.put(msgspec.msgpack.decode(msg.data["data"], type=Done))

    def _on_broken(self, msg: Any, **_: Any) -> None:
        self._broken = msg.data["data"].decode()
