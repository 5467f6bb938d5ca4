"""`python -m loadtests` as a process of its own, against a router in the test."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.hang_guard import eventually, hang_guard
from tests.fakes.process import ROOT
from triptych.loadtests.histogram import Counts, merged, percentile
from triptych.loadtests.results import Clock, Interval, Run, failure_counts, read


@dataclass
class Finished:
    """How a command ended, its output, and its run, if any."""

    code: int
    output: str
    folder: Path

    @property
    def run(self) -> Run:
        return read(self.folder)

    @property
    def html(self) -> str:
        return (self.folder / "report.html").read_text()

    def intervals(self, flow: str = "query") -> list[Interval]:
        """All intervals of one flow."""
        return [interval for measured in self.run.segments for interval in measured.intervals[flow]]

    def count(self, name: str, flow: str = "query") -> int:
        """The sum of a count over all intervals."""
        return sum(getattr(interval, name) for interval in self.intervals(flow))

    def failures(self, flow: str = "query") -> dict[str, int]:
        return {kind: flows[flow] for kind, flows in failure_counts(self.run.segments).items() if flows[flow]}

    def times(self, clock: Clock = "total", flow: str = "query") -> Counts:
        """The latencies of good replies by one clock."""
        return merged(interval.clocks.get(clock, {}) for interval in self.intervals(flow))

    def percentile(self, share: float, clock: Clock = "total", flow: str = "query") -> float:
        """In seconds."""
        return percentile(self.times(clock, flow), share)


class Loadtest:
    """A running load test."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self.process, self.folder = process, folder
        self._output = ""

    async def loads(self) -> None:
        """Wait until the load begins."""
        assert await self._read("load begins"), self._output

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds, which must be before its end."""
        await eventually(lambda: condition() or self.process.returncode is not None)
        assert condition(), (await self.finished()).output

    async def finished(self) -> Finished:
        """Wait for its end."""
        await self._read()
        return Finished(await self.process.wait(), self._output, self.folder)

    async def _read(self, until: str = "") -> bool:
        """Read until a line with this text, or to the end."""
        assert self.process.stdout is not None
        async with hang_guard():
            while line := (await self.process.stdout.readline()).decode():
                self._output += line
                if until and until in line:
                    return True
        return False


@contextlib.asynccontextmanager
async def command(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m loadtests ...`, which ends with the context."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "triptych.loadtests", *arguments),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@contextlib.asynccontextmanager
async def started(folder: Path, name: str, url: str, *arguments: str) -> AsyncIterator[Loadtest]:
    """A command with a target, with its output in `folder`."""
    out = folder / "run"
    async with command(name, "--url", url, "--out", str(out), *arguments) as process:
        yield Loadtest(process, out)


async def loadtest(folder: Path, command: str, url: str, *arguments: str) -> Finished:
    """Run one to its end."""
    async with started(folder, command, url, *arguments) as running:
        return await running.finished()
