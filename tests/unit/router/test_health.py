"""Health checks: which replicas may serve, and how many probes without an answer take one down."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace
from yarl import URL

from tests.fakes.hang_guard import hang_guard
from tests.unit.router.apps import Workers, info
from triptych.router.pool.health import SILENCES_UNTIL_DOWN, Prober, why_refused
from triptych.router.pool.replica import Replica, State


class Silent(Workers):
    """Answers no probe; `asked` is called for each."""

    def __init__(self, asked: Callable[[], object]) -> None:
        super().__init__()
        self._asked = asked

    @asynccontextmanager
    async def get(self, url: URL) -> AsyncIterator[Any]:
        self._asked()
        raise TimeoutError
        yield


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
    prober = Prober(replica, client, lambda: [], seconds_while_up=0.001)

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


def ready(address: str, *, pool: str = "retrieval", version: str | None = None, **changes: Any) -> Replica:
    """A replica whose worker says of itself what `changes` say."""
    replica = Replica(address, pool, 4)
    replica.version = version
    replica.up(replace(info(pool), **changes))
    return replica


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (ready("other:1"), None),
        (ready("other:1", dimensions=64), "other:1 has 64"),
        (ready("other:1", pool="code", dimensions=64), "other:1 has 64"),
        (ready("other:1", pool="v3.base", dimensions=64), None),
        (ready("other:1", space="b" * 16), "vector space"),
        (ready("other:1", space="b" * 16, version="2"), None),
        (ready("other:1", pool="code", space="b" * 16), None),
    ],
)
def test_replicas_with_other_vectors_are_refused(other: Replica, says: str | None) -> None:
    one = ready("one:1")
    assert "the task code" in (why_refused(one, info("code"), [one, other]) or "")
    refusal = why_refused(one, info("retrieval"), [one, other])
    assert (refusal is None) if says is None else (says in (refusal or ""))
