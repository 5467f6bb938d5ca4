"""Probes without an answer take a replica down, unless batches succeed in between."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import pytest
from yarl import URL

from tests.fakes.hang_guard import hang_guard
from tests.unit.router.apps import info
from triptych.router.pool.health import SILENCES_UNTIL_DOWN, Prober
from triptych.router.pool.replica import Replica, State
from triptych.router.pool.transport import WorkerReply


class Silent:
    """A `WorkerClient` that answers no probe; `asked` is called for each."""

    def __init__(self, asked: Callable[[], object]) -> None:
        self._asked = asked

    @asynccontextmanager
    async def get(self, url: URL, seconds: float) -> AsyncIterator[WorkerReply]:
        self._asked()
        raise TimeoutError
        yield

    @asynccontextmanager
    async def post(self, url: URL, body: bytes, headers: Mapping[str, str]) -> AsyncIterator[WorkerReply]:
        raise NotImplementedError
        yield

    async def close(self) -> None:
        """There is nothing to close."""


async def silences_until_down(*, batches_between: bool) -> int:
    """Number of unanswered probes until a replica is down, at most five times `SILENCES_UNTIL_DOWN`."""
    over = asyncio.Event()
    silences = 0

    def asked() -> None:
        nonlocal silences
        silences += 1
        replica.successes += batches_between
        if silences == 5 * SILENCES_UNTIL_DOWN:
            over.set()

    client = Silent(asked)
    replica = Replica("r:1", "retrieval", 4)
    replica.up(info("retrieval"))
    prober = Prober(replica, client, lambda *_: None, seconds_while_up=0.001)

    def changed() -> None:
        assert replica.state is State.DOWN
        over.set()

    replica.changed = changed
    probing = asyncio.create_task(prober.run())
    async with hang_guard():
        await over.wait()
    probing.cancel()
    return silences


@pytest.mark.parametrize("batches_between", [False, True])
async def test_only_consecutive_silences_count(batches_between: bool) -> None:
    probes = (5 if batches_between else 1) * SILENCES_UNTIL_DOWN
    assert await silences_until_down(batches_between=batches_between) == probes
