"""Health checks: which replicas may serve, and how many probes without an answer take one down."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace
from yarl import URL

from tests.fakes.hang_guard import eventually
from tests.unit.router.apps import Workers, info
from triptych.router.background import running
from triptych.router.pool.health import SILENCES_UNTIL_DOWN, Prober, why_refused
from triptych.router.pool.replica import Replica, State


def ready(address: str, *, pool: str = "retrieval", version: str | None = None, **changes: Any) -> Replica:
    """A replica whose worker says of itself what `changes` say."""
    replica = Replica(address, pool, 4)
    replica.version = version
    replica.up(replace(info(pool), **changes))
    return replica


@pytest.mark.parametrize("batches_between", [False, True])
async def test_only_consecutive_silences_count(batches_between: bool) -> None:
    replica, downs = ready("r:1"), list[int]()

    class Silent(Workers):
        asked = 0

        @asynccontextmanager
        async def get(self, url: URL, **_: object) -> AsyncIterator[Any]:
            self.asked += 1
            replica.successes += batches_between
            raise TimeoutError
            yield

    client = Silent()
    replica.changed = lambda: downs.append(client.asked)
    async with running(Prober(replica, client, lambda: [], seconds_while_up=0.001).run()):
        await eventually(lambda: bool(downs) or client.asked >= 5 * SILENCES_UNTIL_DOWN)
    assert downs == ([] if batches_between else [SILENCES_UNTIL_DOWN])
    assert replica.state is (State.READY if batches_between else State.DOWN)


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
