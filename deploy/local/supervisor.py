"""Keeps a router and its workers running: start order, restarts, giving up, and the end of all."""

import asyncio
import os
import signal
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from deploy.local.child import Child, Guard
from deploy.local.output import Output
from deploy.local.readiness import is_ready
from deploy.local.restarts import Deaths, RestartPolicy
from deploy.local.spec import Spec

POLL_SECONDS = 0.25
REPORT_SECONDS = 15.0


class GaveUp(Exception):
    """A child cannot be kept running; the text says which and why."""


class Supervisor:
    """Runs `router` and `workers` until `stop` is called or one of them cannot be kept running.

    `on_ready` is called once, when all were ready for the first time.
    """

    def __init__(
        self,
        router: Spec,
        workers: Sequence[Spec],
        *,
        output: Output,
        guard: Guard,
        stop_seconds: float,
        on_ready: Callable[[], None],
        policy: RestartPolicy | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._router = router
        self._workers = list(workers)
        self._output = output
        self._guard = guard
        self._stop_seconds = stop_seconds
        self._on_ready = on_ready
        self._policy = policy or RestartPolicy()
        self._sleep = sleep
        self._clock = clock
        self._children: dict[str, Child] = {}
        self._waiting = {spec.name for spec in [router, *workers]}
        self._gates: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._stop = asyncio.Event()
        self._kill = asyncio.Event()

    def stop(self) -> None:
        """End all in order; asked a second time, at once."""
        if self._stop.is_set():
            self._kill.set()
        self._stop.set()

    async def run(self) -> None:
        """Until all has ended. Raises `GaveUp` when that was not asked for."""
        keepers = [asyncio.create_task(self._keep(spec)) for spec in [self._router, *self._workers]]
        reporter = asyncio.create_task(self._report())
        stopping = asyncio.create_task(self._stop.wait())
        try:
            done, _ = await asyncio.wait([*keepers, stopping], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                await task  # A keeper ends by an exception only.
        finally:
            # From here on nothing is started; what runs is in `_children`.
            others = [*keepers, reporter, stopping]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await self._end_all()

    async def _keep(self, spec: Spec) -> None:
        deaths = Deaths(self._policy)
        was_ready = False
        while True:
            child, ready = await self._start(spec)
            was_ready = was_ready or ready
            code = await asyncio.shield(child.exited)
            await child.drained()
            if code == os.EX_CONFIG:
                raise GaveUp(_obituary(spec, child, "cannot work with its settings"))
            delay = deaths.delay_after(self._clock(), was_ready)
            if delay is None:
                raise GaveUp(_obituary(spec, child, f"{_ended(code)} again and again"))
            self._output.say(f"{spec.name} {_ended(code)}; starting it again in {delay:g} s")
            await self._sleep(delay)

    async def _start(self, spec: Spec) -> tuple[Child, bool]:
        """Start the child, in its turn, and wait until it is ready or dead; says whether it was ready."""
        if spec.gate is None:
            return await self._start_now(spec)
        async with self._gates[spec.gate]:
            return await self._start_now(spec)

    async def _start_now(self, spec: Spec) -> tuple[Child, bool]:
        started = self._clock()
        child = Child(spec.argv, spec.env, self._guard, lambda text: self._output.line(spec.name, text))
        self._children[spec.name] = child
        self._output.say(f"{spec.name} starts on port {spec.port} (pid {child.pid})")
        while not child.exited.done():
            # Another process may answer on the port of a child that is only just dying.
            if await is_ready(spec.host, spec.port, spec.token) and not child.exited.done():
                self._output.say(f"{spec.name} is ready after {self._clock() - started:.0f} s")
                self._note_ready(spec)
                return child, True
            await asyncio.wait([child.exited], timeout=POLL_SECONDS)
        return child, False

    def _note_ready(self, spec: Spec) -> None:
        if spec.name in self._waiting:
            self._waiting.remove(spec.name)
            if not self._waiting:
                self._on_ready()

    async def _report(self) -> None:
        started = self._clock()
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            if self._waiting:
                names = ", ".join(sorted(self._waiting))
                self._output.say(f"{self._clock() - started:.0f} s: waiting for {names}")

    async def _end_all(self) -> None:
        running = {name: child for name, child in self._children.items() if not child.exited.done()}
        if running:
            self._output.say("stopping")
        router = running.pop(self._router.name, None)
        # The router first: it finishes what it has accepted, and needs the workers for it.
        if router is not None:
            await self._end([router])
        await self._end(list(running.values()))

    async def _end(self, children: Sequence[Child]) -> None:
        if not children:
            return
        for child in children:
            child.terminate()
        all_ended = asyncio.gather(*(child.exited for child in children))
        killed = asyncio.ensure_future(self._kill.wait())
        both: list[asyncio.Future[Any]] = [all_ended, killed]
        await asyncio.wait(both, timeout=self._stop_seconds, return_when=asyncio.FIRST_COMPLETED)
        killed.cancel()
        for child in children:
            child.kill()
        await all_ended
        for child in children:
            await child.drained()


def _ended(code: int) -> str:
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def _obituary(spec: Spec, child: Child, why: str) -> str:
    lines = "\n".join(f"  {line}" for line in child.tail)
    return f"{spec.name} {why}. Its last lines:\n{lines or '  (none)'}"
