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
from triptych.loadtests.capacity import Shape
from triptych.loadtests.crew import Crew
from triptych.loadtests.recording import Samples, Timeline, Total, interval_for
from triptych.loadtests.results import Capacity, Measured, Segment
from triptych.loadtests.setup import until

# From sending a load to its start: ample time for the message to arrive.
DELAY_SECONDS = 0.3
JOIN_SECONDS = 120.0
LOST_SECONDS = 30.0
POLL_SECONDS = 0.1

Watch = Callable[[Total, float], None]
"""Called several times a second of a load with the records so far and the seconds since its start."""


class Conductor:
    """Gives `plan` to the processes of `crew` as they join, then runs loads.

    Raises `HarnessFailed` if it cannot listen. As a context, it accepts processes, and at the end closes
    their connections, which ends them.
    """

    def __init__(self, crew: Crew, plan: Plan, flows: Sequence[str]) -> None:
        self._crew, self._plan, self._flows = crew, plan, flows
        ipv6 = ":" in crew.bind
        try:
            # [::] is also all addresses of IPv4.
            self._listener = socket.create_server(
                (crew.bind.strip("[]"), crew.port),
                family=socket.AF_INET6 if ipv6 else socket.AF_INET,
                dualstack_ipv6=ipv6,
            )
        except OSError as error:
            where = f"{crew.bind}:{crew.port}"
            raise HarnessFailed(f"cannot listen on {where}: {error}; is another run there?") from None
        self.port = int(self._listener.getsockname()[1])
        self._members: dict[int, web.WebSocketResponse] = {}
        # Members that have prepared the plan.
        self._ready: set[int] = set()
        self._inbox: asyncio.Queue[tuple[int, ToConductor]] = asyncio.Queue()
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
        # No other has to replace those that leave now.
        members, self._members = self._members.values(), {}
        await asyncio.gather(*(member.close() for member in members), return_exceptions=True)
        await self._runner.cleanup()

    @property
    def seconds(self) -> float:
        """Since the first load started; 0 before."""
        return 0.0 if self._begin is None else time.monotonic() - self._begin

    async def gather(self, wait_seconds: float = JOIN_SECONDS) -> None:
        """Wait until all processes have joined and prepared the plan. Raises `HarnessFailed`."""
        messages = self._messages(time.monotonic() + wait_seconds)
        while len(self._ready) < self._crew.size:
            await anext(messages)

    async def run(self, shape: Shape, watch: Watch) -> tuple[list[Measured], Capacity | None]:
        """Go through a shape. After `stop`, the result is what was measured until then, without a capacity.

        Raises `HarnessFailed`, and `KeyboardInterrupt` if nothing was measured before `stop`.
        """
        measured: list[Measured] = []
        try:
            segments = next(shape)
            while True:
                news = await self.load(segments, watch)
                measured += news
                if self.stopped:
                    return measured, None
                segments = shape.send(news)
        except StopIteration as finished:
            return measured, finished.value

    async def load(self, segments: Sequence[Segment], watch: Watch) -> list[Measured]:
        """Go through `segments` without a gap. Ends and raises as `run`."""
        interval = interval_for(segments)
        timeline = Timeline(segments, interval)
        total = Total(timeline, self._flows)
        self._number += 1
        load = Load(number=self._number, segments=list(segments), interval=interval, delay=DELAY_SECONDS)
        begin = time.monotonic() + DELAY_SECONDS
        if self._begin is None:
            self._begin = begin
        done: dict[int, Done] = {}
        heard = dict.fromkeys(self._members, begin)
        for member in self._members.values():
            # Reading tells when the process is gone.
            with contextlib.suppress(ConnectionError):
                await member.send_bytes(msgspec.json.encode(load))
        messages = self._messages(begin + timeline.seconds + self._plan.target.timeout + LOST_SECONDS)
        while len(done) < self._crew.size and not self.stopped:
            match await anext(messages):
                case (number, Samples() as samples):
                    total.add(samples)
                    heard[number] = time.monotonic()
                case (number, Done() as report):
                    done[number] = report
            watch(total, time.monotonic() - begin)
        if self.stopped:
            # Up to here, all processes have reported.
            segments, done = until(min(heard.values()) - begin, segments), {}
            if not segments and self._number == 1:
                raise KeyboardInterrupt
        reports = sorted(done.values(), key=lambda report: report.processes[0].name)
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

    def stop(self, *_: object) -> None:
        """Handle Ctrl-C: end the load, and the second time raise `Stopped`."""
        if self.stopped:
            raise Stopped("nothing is missing")
        self.stopped = True

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        """Hand on the messages of a process until it leaves; before the first load another may replace it."""
        free = set(range(self._crew.size)) - self._members.keys()
        if not free:
            raise web.HTTPConflict
        number = min(free)
        member = web.WebSocketResponse(timeout=1, heartbeat=HEARTBEAT_SECONDS, max_msg_size=MESSAGE_BYTES)
        if not member.can_prepare(request):
            raise web.HTTPBadRequest
        self._members[number] = member
        await member.prepare(request)
        plan = msgspec.structs.replace(self._plan, process=number, processes=self._crew.size)
        why = "has ended"
        try:
            await member.send_bytes(msgspec.json.encode(plan))
            async for message in member:
                if message.type is WSMsgType.ERROR:
                    why = f"is lost: {message.data}"
                    break
                self._ready.add(number)
                self._inbox.put_nowait((number, msgspec.json.decode(message.data, type=ToConductor)))
        except ConnectionError:
            pass
        except msgspec.DecodeError as error:
            why = f"sent a malformed message: {error}"
        name = request.query.get("name", "process")
        if self._number:
            self._inbox.put_nowait((number, Broken(f"{name} {why}")))
        elif number in self._members:
            del self._members[number]
            self._ready.discard(number)
            print(f"{name} {why}; waiting for another", flush=True)
        return member

    async def _messages(self, deadline: float) -> AsyncIterator[tuple[int, ToConductor] | None]:
        """Messages of the processes as they come, and None now and then.

        Raises `HarnessFailed` when a process is lost or broken, and at `deadline`.
        """
        while time.monotonic() < deadline:
            self._crew.check()
            try:
                number, message = await asyncio.wait_for(self._inbox.get(), POLL_SECONDS)
            except TimeoutError:
                yield None
                continue
            if isinstance(message, Broken):
                raise HarnessFailed(message.why)
            yield number, message
        joined = f"{len(self._members)} of {self._crew.size} processes joined"
        raise HarnessFailed(f"waited too long: {joined}, and not all have answered")
