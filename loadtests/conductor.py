"""Leads the processes that send the load through the segments of a shape, and adds up what they record."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Self

import msgspec
from aiohttp import WSMsgType, web

from triptych.loadtests.assignment import (
    HEARTBEAT_SECONDS,
    MESSAGE_BYTES,
    Broken,
    Done,
    HarnessFailed,
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
LOST_SECONDS = 30.0
POLL_SECONDS = 0.1

Watch = Callable[[Total, float], None]
"""Called about every second of a load with the records so far and the seconds since its start."""


class Conductor:
    """Gives `plan` to the first `size` processes that join at `host`:`port` (0: any port), then runs loads.

    `alive` raises `HarnessFailed` when a process started by this one has ended. Raises `HarnessFailed` if it
    cannot listen. As a context, it accepts processes, and at the end closes their connections, which ends
    them.
    """

    def __init__(
        self, host: str, port: int, size: int, plan: Plan, flows: Sequence[str], alive: Callable[[], None]
    ) -> None:
        self._size, self._plan, self._flows, self._alive = size, plan, flows, alive
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
        self._members: dict[str, tuple[int, web.WebSocketResponse]] = {}
        # A text says why a process left before the first load.
        self._inbox: asyncio.Queue[tuple[str, ToConductor | str]] = asyncio.Queue()
        self._number = 0
        self._begin: float | None = None
        self.examples: dict[str, str] = {}
        self.compared = 0
        self.stopped = False

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=1)
        await self._runner.setup()
        await web.SockSite(self._runner, self._listener).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(
            *(member.close() for _, member in self._members.values()), return_exceptions=True
        )
        await self._runner.cleanup()

    @property
    def seconds(self) -> float:
        """Since the first load started; 0 before."""
        return 0.0 if self._begin is None else time.monotonic() - self._begin

    async def gather(self, wait_seconds: float = JOIN_SECONDS) -> None:
        """Wait until all processes have joined and prepared the plan. Raises `HarnessFailed`."""
        ready: set[str] = set()
        async for heard in self._messages(time.monotonic() + wait_seconds):
            if heard:
                ready.add(heard[0])
            # One that left again has freed its place.
            ready &= self._members.keys()
            if len(ready) == self._size:
                return

    async def run(self, segments: Sequence[Segment], watch: Watch) -> list[Measured]:
        """Go through `segments` without a gap. After `stop`, the result is what was measured until then.

        Raises `HarnessFailed`, and `KeyboardInterrupt` if nothing was measured before `stop`.
        """
        interval = interval_for(segments)
        timeline = Timeline(segments, interval)
        total = Total(timeline, self._flows)
        self._number += 1
        load = Load(number=self._number, segments=list(segments), interval=interval, delay=DELAY_SECONDS)
        begin = time.monotonic() + DELAY_SECONDS
        if self._begin is None:
            self._begin = begin
        done: dict[str, Done] = {}
        heard = dict.fromkeys(self._members, begin)
        shown = begin
        for _, member in self._members.values():
            # Reading tells when the process is gone.
            with contextlib.suppress(ConnectionError):
                await member.send_bytes(msgspec.json.encode(load))
        messages = self._messages(begin + timeline.seconds + self._plan.target.timeout + LOST_SECONDS)
        while len(done) < self._size and not self.stopped:
            match await anext(messages):
                case (name, Samples() as samples):
                    total.add(samples)
                    heard[name] = time.monotonic()
                case (name, Done() as report):
                    done[name] = report
            if time.monotonic() >= shown:
                shown = time.monotonic() + 1
                watch(total, time.monotonic() - begin)
        if self.stopped:
            # Up to here, all processes have reported.
            segments, done = until(min(heard.values()) - begin, segments), {}
            if not segments and self._number == 1:
                raise KeyboardInterrupt
        reports = [done[name] for name in sorted(done)]
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

    async def search(self, shape: Shape, watch: Watch) -> tuple[list[Measured], Capacity | None]:
        """Go through a shape that depends on what was measured. None after `stop`."""
        measured: list[Measured] = []
        try:
            segment = next(shape)
            while True:
                measured += await self.run([segment], watch)
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

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        """A process joins; hand on its messages until the connection ends.

        If it leaves before the first load, another can take its place.
        """
        free = set(range(self._size)) - {number for number, _ in self._members.values()}
        if not free:
            raise web.HTTPConflict
        number = min(free)
        member = web.WebSocketResponse(timeout=1, heartbeat=HEARTBEAT_SECONDS, max_msg_size=MESSAGE_BYTES)
        if not member.can_prepare(request):
            raise web.HTTPBadRequest
        # Several may have the name of one machine.
        name = request.query.get("name", "process")
        while name in self._members:
            name = f"{name} ({number + 1})"
        self._members[name] = number, member
        await member.prepare(request)
        plan = msgspec.structs.replace(self._plan, process=number, processes=self._size)
        why = "has ended"
        try:
            await member.send_bytes(msgspec.json.encode(plan))
            async for message in member:
                if message.type is WSMsgType.ERROR:
                    why = f"is lost: {message.data}"
                    break
                self._inbox.put_nowait((name, msgspec.json.decode(message.data, type=ToConductor)))
        except ConnectionError:
            pass
        except msgspec.DecodeError as error:
            why = f"sent a malformed message: {error}"
        if self._number:
            self._inbox.put_nowait((name, Broken(why)))
        else:
            del self._members[name]
            self._inbox.put_nowait((name, why))
        return member

    async def _messages(self, deadline: float) -> AsyncIterator[tuple[str, ToConductor] | None]:
        """Messages of the processes as they come, and None now and then.

        Raises `HarnessFailed` when a process is lost or broken, and at `deadline`.
        """
        while time.monotonic() < deadline:
            self._alive()
            try:
                name, message = await asyncio.wait_for(self._inbox.get(), POLL_SECONDS)
            except TimeoutError:
                yield None
                continue
            match message:
                case str(why):
                    print(f"{name} {why}; waiting for another", flush=True)
                case Broken(why=why):
                    raise HarnessFailed(f"{name} {why}")
                case _:
                    yield name, message
        joined = f"{len(self._members)} of {self._size} processes joined"
        raise HarnessFailed(f"waited too long: {joined}, and not all have answered")
