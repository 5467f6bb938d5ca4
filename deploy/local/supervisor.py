"""Supervisor of a router and its workers: start order, liveness, restarts, stopping."""

import asyncio
import os
import signal
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from triptych.deploy.common.child_process import ChildProcess
from triptych.deploy.common.readiness import is_live, is_ready
from triptych.deploy.local.output import Output
from triptych.workers.shared.contract import PoolName

REPORT_SECONDS = 15.0
# How long a child may leave GET /live unanswered. A working event loop does not pause this long, neither for
# a large reply nor for a garbage collection. Clients and routers wait longer, 60 s by default.
LIVE_SECONDS = 15.0
# Probes in that time; each may take an equal part of it.
LIVE_QUESTIONS = 5
# Restart delays double from one second up to this.
MAX_DELAY_SECONDS = 30.0
# A child that served this long starts over with the first delay.
WINDOW_SECONDS = 600.0
# A deployment that is starting ends after this many deaths of a child that was never ready.
START_DEATHS = 3


class GaveUp(Exception):
    """The deployment cannot start; the text says which child fails and why. `status` is the exit status."""

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Spec:
    """A child process: `argv` with exactly the environment `env`, ready when GET /ready on `port` is 200.

    Children with the same `gate` start one after another, each once the one before it is ready. Children
    without a gate start at once. `token` is sent with GET /ready. A worker is of a `pool`.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    host: str
    port: int
    gate: str | None = None
    token: str | None = field(default=None, repr=False)
    pool: PoolName | None = None


@dataclass
class Supervisor:
    """Runs `router` and `workers` until `stop` is called.

    A child that dies, hangs or cannot be forked is restarted with backoff; the others serve on.
    `on_ready` is called once, when all children have been ready. Until then a child that cannot work ends the
    deployment, so that the operator sees the error.
    """

    router: Spec
    workers: Sequence[Spec]
    output: Output
    on_ready: Callable[[], None]
    stop_seconds: float
    live_seconds: float = LIVE_SECONDS
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self.children: dict[str, ChildProcess] = {}
        self._waiting = {spec.name for spec in (self.router, *self.workers)}
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._gates: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Stop the router, then the workers; when called again, kill them."""
        if self._stop.is_set():
            for child in self.children.values():
                child.kill()
        self._stop.set()

    async def run(self) -> None:
        """Run until all children have ended. Raises `GaveUp` when the deployment cannot start."""
        keepers = [asyncio.create_task(self._keep(spec)) for spec in (self.router, *self.workers)]
        stopping = asyncio.create_task(self._stop.wait())
        started = self.clock()
        try:
            done: set[asyncio.Task[Any]] = set()
            while not done:
                done, _ = await asyncio.wait(
                    [*keepers, stopping], timeout=REPORT_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                if self._waiting and not done:
                    names = ", ".join(sorted(self._waiting))
                    self.output.say(f"{self.clock() - started:.0f} s: waiting for {names}")
            for task in done - {stopping}:
                await task  # It ends only by an exception.
        finally:
            # No child starts after this; all that run are in `children`.
            others = [*keepers, *self._watchers.values(), stopping]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await self._end_all()

    async def _keep(self, spec: Spec) -> None:
        """Start the child, and restart it after each death. Raises `GaveUp`."""
        deaths, was_ready = 0, False
        while True:
            child, code, served = None, None, 0.0
            try:
                child, ready_at = await self._start(spec)
            except OSError as error:
                why = f"cannot be started ({error})"
            else:
                await child.drained()
                code = child.exited.result()
                why = (
                    f"was ended by {signal.Signals(-code).name}"
                    if code < 0
                    else f"ended with exit code {code}"
                )
                if ready_at is not None:
                    was_ready, served = True, self.clock() - ready_at
            deaths = 1 if served >= WINDOW_SECONDS else deaths + 1
            delay = min(2.0 ** min(deaths - 1, 10), MAX_DELAY_SECONDS)
            if self._waiting:
                if code == os.EX_CONFIG:
                    why = "cannot work with its settings or its checkpoint"
                    raise GaveUp(_obituary(spec, child, why), code)
                if not was_ready and deaths >= START_DEATHS:
                    raise GaveUp(_obituary(spec, child, f"{why} again and again"))
            self.output.say(f"{spec.name} {why}; death {deaths}, starting it again in {delay:g} s")
            await self.sleep(delay)

    async def _start(self, spec: Spec) -> tuple[ChildProcess, float | None]:
        """Start the child when its gate is free; returns when it became ready, None if it died first.

        Raises `OSError` when it cannot be started.
        """
        async with self._gates[spec.gate or spec.name]:
            started = self.clock()
            child = ChildProcess(spec.argv, spec.env, partial(self.output.line, spec.name))
            self.children[spec.name] = child
            self._watchers[spec.name] = asyncio.create_task(self._watch(spec, child))
            self.output.say(f"{spec.name} starts on port {spec.port} (pid {child.pid})")
            if not await child.ready(partial(is_ready, spec.host, spec.port, spec.token)):
                return child, None
            now = self.clock()
            self.output.say(f"{spec.name} is ready after {now - started:.0f} s")
            if self._waiting:
                self._waiting.discard(spec.name)
                if not self._waiting:
                    self.on_ready()
            return child, now

    async def _watch(self, spec: Spec, child: ChildProcess) -> None:
        """Kill a child that has answered GET /live and stops answering it.

        It counts from the first answer, not from readiness: a router is not ready while a pool is down. It
        counts probes, not seconds: on a machine that was suspended, time passed without a probe.
        """
        seconds = self.live_seconds / LIVE_QUESTIONS
        answered, missed, closed = False, 0, 0.0
        while missed < LIVE_QUESTIONS and closed < self.stop_seconds:
            _, live = await asyncio.gather(
                asyncio.wait([child.exited], timeout=seconds), is_live(spec.host, spec.port, seconds)
            )
            if child.exited.done():
                return
            if live:
                answered, missed, closed = True, 0, 0.0
            elif answered and live is None:
                # It was told to stop and finishes its requests.
                closed += seconds
            elif answered:
                missed += 1
        silence = max(self.live_seconds, closed)
        self.output.say(f"{spec.name} does not answer /live for {silence:g} s; killing it")
        child.kill()

    async def _end_all(self) -> None:
        if any(child.code is None for child in self.children.values()):
            self.output.say("stopping")
        # The router first: it needs the workers to finish the requests that it has accepted.
        for group in ([self.router], self.workers):
            children = [self.children[spec.name] for spec in group if spec.name in self.children]
            await asyncio.gather(*(child.stop(self.stop_seconds) for child in children))


def _obituary(spec: Spec, child: ChildProcess | None, why: str) -> str:
    lines = "\n".join(f"  {line}" for line in child.tail) if child else ""
    return f"{spec.name} {why}. Its last lines:\n{lines or '  (none)'}"
