"""Leads the processes that send the load through the segments of a shape, and adds up what they record."""

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from triptych.loadtests.assignment import (
    Broken,
    Done,
    HarnessFailed,
    Joined,
    Load,
    Plan,
    Prepared,
    Sampled,
    ToConductor,
)
from triptych.loadtests.channel import Channel
from triptych.loadtests.recording import Timeline, Total, interval_for
from triptych.loadtests.results import Capacity, Measured, Segment
from triptych.loadtests.shapes import Shape, until

# From sending a load to its start: ample time for the message to arrive.
DELAY_SECONDS = 0.3
JOIN_SECONDS = 120.0
SILENT_SECONDS = 10.0
LOST_SECONDS = 30.0

Watch = Callable[[Total, Load, float], None]
"""Called about every second of a load with the records so far and the seconds since its start."""


@dataclass
class _Member:
    name: str
    channel: Channel[ToConductor]


class Conductor:
    """Waits for `size` processes to join at `host`:`port` (0: any port), then runs loads.

    `alive` raises `HarnessFailed` when a process started by this one has ended. Raises `HarnessFailed` if it
    cannot listen.
    """

    def __init__(self, host: str, port: int, size: int, alive: Callable[[], None]) -> None:
        self._size, self._alive = size, alive
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._listener = socket.create_server((host.strip("[]"), port), family=family)
        except OSError as error:
            raise HarnessFailed(f"cannot listen on {host}:{port}: {error}; is another run there?") from None
        self.port: int = self._listener.getsockname()[1]
        self._members: list[_Member] = []
        self._inbox: queue.Queue[tuple[_Member, ToConductor | str]] = queue.Queue()
        self._number = 0
        self._begin: float | None = None
        self.examples: dict[str, str] = {}
        self.compared = 0
        self.stopped = False

    @property
    def seconds(self) -> float:
        """Since the first load started; 0 before."""
        return 0.0 if self._begin is None else time.monotonic() - self._begin

    def gather(self, plan: Plan, flows: Sequence[str]) -> None:
        """Wait until all processes have joined and prepared `plan`. Raises `HarnessFailed`."""
        self._plan, self._flows = plan, flows
        deadline = time.monotonic() + JOIN_SECONDS
        self._listener.settimeout(0.2)
        while len(self._members) < self._size:
            self._alive()
            if time.monotonic() > deadline:
                raise HarnessFailed(f"{len(self._members)} of {self._size} processes joined")
            try:
                connection, _ = self._listener.accept()
                self._welcome(Channel[ToConductor](connection, ToConductor))
            except TimeoutError:
                continue
        self._listener.settimeout(None)
        threading.Thread(target=self._refuse, daemon=True).start()
        for number, member in enumerate(self._members):
            member.channel.send(msgspec.structs.replace(plan, process=number, processes=self._size))
            threading.Thread(target=self._listen, args=(member,), daemon=True).start()
        prepared = 0
        for _, message in self._messages(deadline + JOIN_SECONDS):
            prepared += isinstance(message, Prepared)
            if prepared == self._size:
                return

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
        done: dict[int, Done] = {}
        shown = begin
        try:
            for member in self._members:
                member.channel.send(load)
            for member, message in self._messages(
                begin + timeline.seconds + self._plan.target.timeout + LOST_SECONDS
            ):
                if isinstance(message, Sampled):
                    total.add(message.samples)
                elif isinstance(message, Done):
                    done[id(member)] = message
                    if len(done) == self._size:
                        break
                if time.monotonic() >= shown:
                    shown = time.monotonic() + 1
                    watch(total, load, time.monotonic() - begin)
        except KeyboardInterrupt:
            self.stopped = True
            segments = until(time.monotonic() - begin, segments)
            done = {}
        except OSError as error:
            raise HarnessFailed(f"lost a process: {error}") from None
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
        """End all processes, whatever they are doing."""
        with contextlib.suppress(OSError):
            # This wakes `_refuse`.
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for member in self._members:
            member.channel.close()

    def _welcome(self, channel: Channel[ToConductor]) -> None:
        try:
            joined = channel.receive(SILENT_SECONDS)
        except (EOFError, OSError, msgspec.DecodeError):
            return
        if isinstance(joined, Joined):
            self._members.append(_Member(joined.name, channel))

    def _refuse(self) -> None:
        """Turn further processes away, until `close`. Runs in a thread."""
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.close()

    def _listen(self, member: _Member) -> None:
        """Put what `member` sends into the inbox, and in the end why there is no more. Runs in a thread."""
        timeout = JOIN_SECONDS
        try:
            while True:
                message = member.channel.receive(timeout)
                # From then on it sends something every second.
                timeout = SILENT_SECONDS
                self._inbox.put((member, message))
        except TimeoutError:
            self._inbox.put((member, f"{member.name} sent nothing for {timeout:g} s"))
        except (EOFError, OSError, msgspec.DecodeError) as error:
            self._inbox.put((member, f"{member.name} is gone: {error}"))

    def _messages(self, deadline: float) -> Iterator[tuple[_Member, ToConductor | None]]:
        """Messages as they come, and None when there is none for a while.

        Raises `HarnessFailed` when a process is lost or broken, and at `deadline`.
        """
        while time.monotonic() < deadline:
            self._alive()
            try:
                member, message = self._inbox.get(timeout=0.5)
            except queue.Empty:
                yield self._members[0], None
                continue
            if isinstance(message, str):
                raise HarnessFailed(message)
            if isinstance(message, Broken):
                raise HarnessFailed(f"{member.name} failed:\n{message.traceback}")
            yield member, message
        raise HarnessFailed(f"waited too long for {self._size} processes")
