"""Leads the processes that send the load through the segments of a shape, and adds up what they record."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import msgspec
import zmq

from triptych.loadtests.assignment import (
    Broken,
    Done,
    HarnessFailed,
    Joined,
    Load,
    Plan,
    Refused,
    Sampled,
    ToConductor,
)
from triptych.loadtests.recording import Timeline, Total, interval_for
from triptych.loadtests.results import Capacity, Measured, Segment
from triptych.loadtests.shapes import Shape, until

# From sending a load to its start: ample time for the message to arrive.
DELAY_SECONDS = 0.3
JOIN_SECONDS = 120.0
SILENT_SECONDS = 10.0
LOST_SECONDS = 30.0
POLL_MILLISECONDS = 500

Watch = Callable[[Total, float], None]
"""Called about every second of a load with the records so far and the seconds since its start."""


@dataclass
class _Member:
    name: str
    # Infinite until it is ready.
    heard: float = math.inf


class Conductor:
    """Waits for `size` processes to join at `host`:`port` (0: any port), then runs loads.

    `alive` raises `HarnessFailed` when a process started by this one has ended. Raises `HarnessFailed` if it
    cannot listen.
    """

    def __init__(self, host: str, port: int, size: int, alive: Callable[[], None]) -> None:
        self._size, self._alive = size, alive
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.IPV6, 1)
        self._socket.setsockopt(zmq.LINGER, 0)
        # Any process of the network may send one.
        self._socket.setsockopt(zmq.MAXMSGSIZE, 64 << 20)
        try:
            self._socket.bind(f"tcp://{host}:{port or '*'}")
        except zmq.ZMQError as error:
            self._socket.close()
            raise HarnessFailed(f"cannot listen on {host}:{port}: {error}; is another run there?") from None
        self.port = int(self._socket.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2])
        self._members: dict[bytes, _Member] = {}
        self._number = 0
        self._begin: float | None = None
        self.examples: dict[str, str] = {}
        self.compared = 0
        self.stopped = False

    @property
    def seconds(self) -> float:
        """Since the first load started; 0 before."""
        return 0.0 if self._begin is None else time.monotonic() - self._begin

    def gather(self, plan: Plan, flows: Sequence[str], wait_seconds: float = JOIN_SECONDS) -> None:
        """Wait until all processes have joined and prepared `plan`. Raises `HarnessFailed`."""
        self._plan, self._flows = plan, flows
        messages = self._messages(time.monotonic() + wait_seconds)
        while len(self._members) < self._size:
            next(messages)
        for number, sender in enumerate(self._members):
            self._send(sender, msgspec.structs.replace(plan, process=number, processes=self._size))
        messages = self._messages(time.monotonic() + wait_seconds)
        while any(member.heard == math.inf for member in self._members.values()):
            next(messages)

    def run(self, segments: Sequence[Segment], watch: Watch) -> list[Measured]:
        """Go through `segments` without a gap. On Ctrl-C, the result is what was measured until then.

        Raises `HarnessFailed`.
        """
        interval = interval_for(segments)
        timeline = Timeline(segments, interval)
        total = Total(timeline, self._flows)
        self._number += 1
        load = Load(number=self._number, segments=list(segments), interval=interval, delay=DELAY_SECONDS)
        begin = time.monotonic() + DELAY_SECONDS
        if self._begin is None:
            self._begin = begin
        done: dict[bytes, Done] = {}
        shown = begin
        try:
            for member in self._members:
                self._send(member, load)
            messages = self._messages(begin + timeline.seconds + self._plan.target.timeout + LOST_SECONDS)
            while len(done) < self._size:
                match next(messages):
                    case (_, Sampled(samples)):
                        total.add(samples)
                    case (sender, Done() as report):
                        done[sender] = report
                if time.monotonic() >= shown:
                    shown = time.monotonic() + 1
                    watch(total, time.monotonic() - begin)
        except KeyboardInterrupt:
            self.stopped = True
            segments = until(time.monotonic() - begin, segments)
            done = {}
        reports = sorted(done.values(), key=lambda one: one.processes[0].name)
        self.compared = sum(one.compared for one in reports) or self.compared
        self.examples = total.examples | self.examples
        return [
            Measured(
                segment=segment,
                began=begin - self._begin + timeline.begins[number],
                interval=interval,
                intervals=total.segments[number],
                processes=[one.processes[number] for one in reports],
                machine_cpu=max((one.machine_cpu[number] for one in reports), default=None),
            )
            for number, segment in enumerate(segments)
        ]

    def search(self, shape: Shape, watch: Watch) -> tuple[list[Measured], Capacity | None]:
        """Go through a shape that depends on what was measured. None after Ctrl-C."""
        measured: list[Measured] = []
        try:
            segment = next(shape)
            while True:
                measured += self.run([segment], watch)
                if self.stopped:
                    return measured, None
                segment = shape.send(measured[-1])
        except StopIteration as finished:
            return measured, finished.value

    def close(self) -> None:
        """End all processes, whatever they are doing: they notice that the connection is closed."""
        self._socket.close()

    def _send(self, receiver: bytes, message: msgspec.Struct) -> None:
        self._socket.send_multipart([receiver, msgspec.msgpack.encode(message)])

    def _messages(self, deadline: float) -> Iterator[tuple[bytes, ToConductor] | None]:
        """Messages of the processes as they come, and None now and then.

        Raises `HarnessFailed` when a process is lost or broken, and at `deadline`.
        """
        while time.monotonic() < deadline:
            self._alive()
            yield self._receive() if self._socket.poll(POLL_MILLISECONDS) else None
            for member in self._members.values():
                if time.monotonic() - member.heard > SILENT_SECONDS:
                    raise HarnessFailed(f"{member.name} sent nothing for {SILENT_SECONDS:g} s")
        if len(self._members) < self._size:
            raise HarnessFailed(f"waited too long: {len(self._members)} of {self._size} processes joined")
        raise HarnessFailed(f"waited too long for {self._size} processes, which still answer")

    def _receive(self) -> tuple[bytes, ToConductor] | None:
        """The next message of a process that belongs to the run. Others join, or are refused."""
        try:
            sender, data = self._socket.recv_multipart()
            message = msgspec.msgpack.decode(data, type=ToConductor)
        except (ValueError, msgspec.DecodeError):
            return None
        if isinstance(message, Joined) and len(self._members) < self._size:
            self._members[sender] = _Member(message.name)
        member = self._members.get(sender)
        if member is None:
            self._send(sender, Refused())
            return None
        if isinstance(message, Broken):
            raise HarnessFailed(f"{member.name} failed:\n{message.traceback}")
        if isinstance(message, Sampled):
            member.heard = time.monotonic()
        return sender, message
