"""Leads the processes that send the load through the segments of a shape, and adds up what they record."""

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import msgspec

from triptych.loadtests.assignment import (
    LINE_BYTES,
    Broken,
    Done,
    HarnessFailed,
    Joined,
    Load,
    Plan,
    Stopped,
    ToConductor,
)
from triptych.loadtests.recording import Samples, Timeline, Total, interval_for
from triptych.loadtests.results import Capacity, Measured, Segment
from triptych.loadtests.shapes import Shape, until

# From sending a load to its start: ample time for the message to arrive.
DELAY_SECONDS = 0.3
JOIN_SECONDS = 120.0
# For the first message of a connection, and between two messages of a process that is ready.
SILENT_SECONDS = 10.0
LOST_SECONDS = 30.0
POLL_SECONDS = 0.1

Watch = Callable[[Total, float], None]
"""Called about every second of a load with the records so far and the seconds since its start."""
_Heard = tuple["_Member", Joined | ToConductor]


class _Member:
    """A connection to the conductor: a process that joins, or a stranger. A thread reads its messages."""

    def __init__(self, connection: socket.socket, put: Callable[[_Heard], None]) -> None:
        self.connection, self.name = connection, ""
        threading.Thread(target=self._read, args=(put,), daemon=True).start()

    def send(self, message: msgspec.Struct) -> None:
        # Reading tells when the process is gone.
        with contextlib.suppress(OSError):
            self.connection.sendall(msgspec.json.encode(message) + b"\n")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()

    def _read(self, put: Callable[[_Heard], None]) -> None:
        """Hand on its messages until the connection ends."""
        why = "has ended"
        try:
            self.connection.settimeout(SILENT_SECONDS)
            lines = self.connection.makefile("rb")
            joined = msgspec.json.decode(lines.readline(1 << 10), type=Joined)
            self.connection.settimeout(None)
            self.name = joined.name
            put((self, joined))
            while line := lines.readline(LINE_BYTES):
                put((self, msgspec.json.decode(line, type=ToConductor)))
                self.connection.settimeout(SILENT_SECONDS)
        except TimeoutError:
            why = f"sent nothing for {SILENT_SECONDS:g} s"
        except OSError as error:
            why = f"is lost: {error}"
        except (ValueError, RecursionError) as error:
            why = f"sent a malformed line: {error}"
        put((self, Broken(why)))


class Conductor:
    """Waits for `size` processes to join at `host`:`port` (0: any port), then runs loads.

    `alive` raises `HarnessFailed` when a process started by this one has ended. Raises `HarnessFailed` if it
    cannot listen.
    """

    def __init__(self, host: str, port: int, size: int, alive: Callable[[], None]) -> None:
        self._size, self._alive = size, alive
        ipv6 = ":" in host
        family = socket.AF_INET6 if ipv6 else socket.AF_INET
        try:
            # [::] is also all addresses of IPv4.
            self._listener = socket.create_server(
                (host.strip("[]"), port), family=family, dualstack_ipv6=ipv6
            )
        except OSError as error:
            raise HarnessFailed(f"cannot listen on {host}:{port}: {error}; is another run there?") from None
        self.port = int(self._listener.getsockname()[1])
        self._members: list[_Member] = []
        self._inbox: queue.SimpleQueue[_Heard] = queue.SimpleQueue()
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
        deadline = time.monotonic() + wait_seconds
        threading.Thread(target=self._accept, daemon=True).start()
        while len(self._members) < self._size:
            self._alive()
            if time.monotonic() >= deadline:
                joined = f"{len(self._members)} of {self._size}"
                raise HarnessFailed(f"waited too long: {joined} processes joined")
            with contextlib.suppress(queue.Empty):
                match self._inbox.get(timeout=POLL_SECONDS):
                    case (member, Joined()):
                        self._members.append(member)
                    case (member, _) if member in self._members:
                        # It left before the start; another may join.
                        self._members.remove(member)
        # Any further process finds that no run waits here.
        self._stop_listening()
        for number, member in enumerate(self._members):
            member.send(msgspec.structs.replace(plan, process=number, processes=self._size))
        ready: set[_Member] = set()
        messages = self._messages(time.monotonic() + wait_seconds)
        while len(ready) < self._size:
            if heard := next(messages):
                ready.add(heard[0])

    def run(self, segments: Sequence[Segment], watch: Watch) -> list[Measured]:
        """Go through `segments` without a gap. After `stop`, the result is what was measured until then.

        Raises `HarnessFailed`, and `KeyboardInterrupt` if there was no load before `stop`.
        """
        interval = interval_for(segments)
        timeline = Timeline(segments, interval)
        total = Total(timeline, self._flows)
        self._number += 1
        load = Load(number=self._number, segments=list(segments), interval=interval, delay=DELAY_SECONDS)
        begin = time.monotonic() + DELAY_SECONDS
        if self._begin is None:
            self._begin = begin
        done: dict[_Member, Done] = {}
        shown = begin
        for member in self._members:
            member.send(load)
        messages = self._messages(begin + timeline.seconds + self._plan.target.timeout + LOST_SECONDS)
        while len(done) < self._size and not self.stopped:
            match next(messages):
                case (member, Samples() as samples):
                    try:
                        total.add(samples)
                    except ValueError as error:
                        raise HarnessFailed(f"{member.name} sent wrong records: {error}") from None
                case (member, Done() as report):
                    if len(report.processes) != len(segments):
                        raise HarnessFailed(f"{member.name} sent too few or too many processes")
                    done[member] = report
            if time.monotonic() >= shown:
                shown = time.monotonic() + 1
                watch(total, time.monotonic() - begin)
        if self.stopped:
            if self.seconds <= 0:
                # No load has begun, so there is no result.
                raise KeyboardInterrupt
            segments, done = until(time.monotonic() - begin, segments), {}
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
            )
            for number, segment in enumerate(segments)
        ]

    def search(self, shape: Shape, watch: Watch) -> tuple[list[Measured], Capacity | None]:
        """Go through a shape that depends on what was measured. None after `stop`."""
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

    def stop(self, *_: object) -> None:
        """Handle Ctrl-C: end the load, and the second time raise `Stopped`."""
        if self.stopped:
            raise Stopped("nothing is missing")
        self.stopped = True

    def close(self) -> None:
        """End all processes, whatever they are doing: they notice that the connection is closed."""
        self._stop_listening()
        for member in self._members:
            member.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                _Member(self._listener.accept()[0], self._inbox.put)

    def _stop_listening(self) -> None:
        # Without it, `accept` would go on in its thread.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _messages(self, deadline: float) -> Iterator[_Heard | None]:
        """Messages of the processes as they come, and None now and then.

        Raises `HarnessFailed` when a process is lost or broken, and at `deadline`.
        """
        while time.monotonic() < deadline:
            self._alive()
            try:
                member, message = self._inbox.get(timeout=POLL_SECONDS)
            except queue.Empty:
                yield None
                continue
            if member not in self._members:
                # A stranger, or one process too many.
                member.close()
                continue
            if isinstance(message, Broken):
                raise HarnessFailed(f"{member.name} {message.why}")
            yield member, message
        raise HarnessFailed(f"waited too long for {self._size} processes, which still answer")
