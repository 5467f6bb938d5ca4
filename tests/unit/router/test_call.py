"""Calls to workers: vectors are checked, and errors tell whether the worker had the batch."""

import errno
from collections.abc import Callable

import aiohttp
import numpy as np
import pytest
from msgspec.structs import replace

from tests.fakes.frames import vector_of
from tests.unit.router.apps import info
from triptych.router.pool.call import ReplicaFailed, check_vector
from triptych.router.pool.transport import was_sent
from triptych.workers.shared.contract import Document, Item, Text, Vector

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


@pytest.mark.parametrize(
    ("error", "sent"),
    [
        (aiohttp.ServerDisconnectedError(), True),
        (aiohttp.ClientOSError(errno.ECONNRESET, "Connection reset by peer"), True),
        (aiohttp.ClientOSError(None, "Can not write request body for http://a"), False),
        (aiohttp.ConnectionTimeoutError(), False),
    ],
)
def test_only_whole_requests_count_as_sent(error: Exception, sent: bool) -> None:
    """An input is suspected of a worker's death only if the worker has read it."""
    assert was_sent(error) is sent
