"""How a process that sends load ends: with its run, or with the reason why it could not go on."""

import asyncio
import contextlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.fakes.hang_guard import GUARD_SECONDS
from tests.unit.loadtests.test_conductor import LOCAL, plan
from triptych.loadtests.assignment import HarnessFailed
from triptych.loadtests.conductor import Conductor
from triptych.loadtests.generator import Generator
from triptych.loadtests.join import join


@contextlib.contextmanager
def joining(name: str = "process 1") -> Iterator[tuple[Conductor, Future[None]]]:
    conductor = Conductor(LOCAL, 0, 1, lambda: None)
    with ThreadPoolExecutor() as threads, contextlib.closing(conductor):
        yield conductor, threads.submit(join, LOCAL, conductor.port, name)


def test_process_ends_with_its_run() -> None:
    with joining() as (conductor, joined):
        conductor.gather(plan(), ["query"])
        conductor.close()
        assert joined.result(GUARD_SECONDS) is None


def test_failed_report_is_told_at_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    def take(_: Generator) -> None:
        raise RuntimeError("it broke")

    monkeypatch.setattr(Generator, "take", take)
    with joining() as (conductor, joined):
        with pytest.raises(HarnessFailed, match=r"(?s)process 1 failed.*it broke"):
            conductor.gather(plan(), ["query"], GUARD_SECONDS)
        conductor.close()
        with pytest.raises(HarnessFailed, match="it broke"):
            joined.result(GUARD_SECONDS)


def test_lost_conductor_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    readline = asyncio.StreamReader.readline

    async def lost(reader: asyncio.StreamReader) -> bytes:
        # After the plan, as if the conductor's machine were gone.
        monkeypatch.setattr(asyncio.StreamReader, "readline", failing)
        return await readline(reader)

    async def failing(_: asyncio.StreamReader) -> bytes:
        raise TimeoutError("no acknowledgement")

    monkeypatch.setattr(asyncio.StreamReader, "readline", lost)
    with joining() as (conductor, joined):
        with pytest.raises(HarnessFailed, match="process 1"):
            conductor.gather(plan(), ["query"], GUARD_SECONDS)
        with pytest.raises(HarnessFailed, match="lost: no acknowledgement"):
            joined.result(GUARD_SECONDS)
