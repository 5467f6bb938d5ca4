"""Calls to workers: vectors are checked, and errors tell whether the worker had the batch."""

import errno
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
import numpy as np
import pytest
from msgspec.structs import replace

from tests.fakes.frames import vector_of
from tests.unit.router.apps import Answer, info, one
from tests.unit.router.told import Told
from triptych.router.pool.call import REJECTED, Declined, ReplicaFailed, check_vector, encode
from triptych.router.pool.replica import State
from triptych.workers.shared import contract
from triptych.workers.shared.contract import DEAD, STATE_HEADER, WAIT_HEADER, Document, Item, Text, Vector

TEXT = Text("a long text of some tokens", "query")
ITEMS = {
    "whole": Item(TEXT),
    "cut": Item(TEXT, dimensions=128),
    "multi-vector": Item(TEXT, multivector=True),
    "document": Item(Document(("one", "two"), "query")),
}


def last_value(vector: Vector, value: float) -> Vector:
    return replace(vector, data=vector.data[:-4] + np.float32(value).tobytes())


DAMAGES: dict[str, Callable[[Vector], Vector]] = {
    "dimension": lambda vector: replace(vector, shape=(*vector.shape[:-1], vector.shape[-1] - 1)),
    "rows": lambda vector: replace(vector, shape=(3, *vector.shape[-1:])),
    "bytes": lambda vector: replace(vector, data=vector.data[:-4]),
    "nan": lambda vector: last_value(vector, float("nan")),
    "infinite": lambda vector: last_value(vector, float("inf")),
    "length": lambda vector: replace(vector, data=(2 * np.frombuffer(vector.data, np.float32)).tobytes()),
}


@pytest.mark.parametrize("item", ITEMS.values(), ids=ITEMS)
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_invalid_vector_is_refused(item: Item, damage: Callable[[Vector], Vector]) -> None:
    vector = vector_of("retrieval", item, 2048)
    check_vector(vector, item, info("retrieval"))
    with pytest.raises(ReplicaFailed):
        check_vector(damage(vector), item, info("retrieval"))


class Failing:
    """A session whose calls end in `outcome`."""

    def __init__(self, outcome: Answer | Exception) -> None:
        self._outcome = outcome

    @asynccontextmanager
    async def post(self, *_: object, **__: object) -> AsyncIterator[Answer]:
        if isinstance(self._outcome, Exception):
            raise self._outcome
        yield self._outcome


def status(code: int, state: str = "") -> Answer:
    return Answer(one(b"a reason"), {STATE_HEADER: state}, code)


REFUSED = aiohttp.ClientConnectorError(None, ConnectionRefusedError())  # type: ignore[arg-type]
BROKEN = aiohttp.ClientOSError(errno.ECONNRESET, "Connection reset by peer")
UNSENT = aiohttp.ClientOSError(None, "Can not write request body for http://a")


@pytest.mark.parametrize(
    ("outcome", "state", "gone", "perhaps_dead"),
    [
        (REFUSED, State.DOWN, True, False),
        (aiohttp.ServerDisconnectedError(), State.SUSPECT, False, True),
        (BROKEN, State.SUSPECT, False, True),
        (UNSENT, State.SUSPECT, False, False),
        (aiohttp.ConnectionTimeoutError(), State.SUSPECT, False, False),
        (status(500, state=DEAD), State.DOWN, True, True),
        (status(401), State.DOWN, False, False),
        (status(200), State.DOWN, False, False),
        (status(503), State.READY, False, False),
    ],
)
async def test_failure_tells_what_became_of_the_replica(
    outcome: Answer | Exception, state: State, gone: bool, perhaps_dead: bool
) -> None:
    """An input is suspected of a worker's death only if the worker has read it."""
    pool = Told(1)
    pool.ask()
    [batch] = pool.in_flight
    with pytest.raises(ReplicaFailed) as caught:
        await encode(Failing(outcome), pool.replica, batch, lambda *_: None)  # type: ignore[arg-type]
    pool.replica_failed(pool.replica, caught.value, 0.0, 0.0)
    assert pool.replica.state is state
    assert (caught.value.gone, caught.value.perhaps_dead) == (gone, perhaps_dead)


@pytest.mark.parametrize(
    ("code", "state", "wait", "outcome", "seconds"),
    [
        (503, contract.OVERLOADED, "1.5", contract.OVERLOADED, 1.5),
        (503, contract.OVERLOADED, "soon", contract.OVERLOADED, None),
        (503, contract.DRAINING, "", contract.DRAINING, None),
        (400, "", "", REJECTED, None),
    ],
)
async def test_declined_batch_is_no_failure(
    code: int, state: str, wait: str, outcome: str, seconds: float | None
) -> None:
    pool = Told(1)
    pool.ask()
    [batch] = pool.in_flight
    answer = Answer(one(b"a reason"), {STATE_HEADER: state, WAIT_HEADER: wait}, code)
    with pytest.raises(Declined) as caught:
        await encode(Failing(answer), pool.replica, batch, lambda *_: None)  # type: ignore[arg-type]
    assert (caught.value.outcome, caught.value.seconds) == (outcome, seconds)
