"""Queries of death: items that were in flight when a worker's process died (pure).

Such an item may be what killed it. It is tried once more, with a replica to itself; when that dies too, the
item fails for good. Items are remembered by a hash, so that one that is sent again kills no more workers.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable

import msgspec

from router.errors import CrashesWorker
from router.item import Item

DEATHS_UNTIL_REFUSED = 2
REMEMBERED_SECONDS = 600.0
MOST_REMEMBERED = 10_000

_encode = msgspec.msgpack.Encoder().encode


class Suspects:
    """How many deaths each item was in flight at."""

    def __init__(self) -> None:
        self._deaths: OrderedDict[bytes, tuple[int, float]] = OrderedDict()

    def check(self, items: Iterable[Item], now: float) -> None:
        """Set `deaths` of items that have just arrived. Raises `CrashesWorker` for one that had too many."""
        self._forget_old(now)
        if not self._deaths:
            return
        for item in items:
            item.deaths, _ = self._deaths.get(_key(item), (0, now))
            if item.deaths >= DEATHS_UNTIL_REFUSED:
                raise _error(item)

    def died(self, item: Item, now: float) -> CrashesWorker | None:
        """A worker died with `item` in flight; returns the error of an item that is refused from now on."""
        item.deaths += 1
        key = _key(item)
        self._deaths[key] = (item.deaths, now)
        self._deaths.move_to_end(key)
        if len(self._deaths) > MOST_REMEMBERED:
            self._deaths.popitem(last=False)
        return _error(item) if item.deaths >= DEATHS_UNTIL_REFUSED else None

    def clear(self, item: Item) -> None:
        """`item` has been served: it kills no worker."""
        self._deaths.pop(_key(item), None)
        item.deaths = 0

    def _forget_old(self, now: float) -> None:
        while self._deaths:
            key, (_, at) = next(iter(self._deaths.items()))
            if now - at < REMEMBERED_SECONDS:
                return
            del self._deaths[key]


def _error(item: Item) -> CrashesWorker:
    return CrashesWorker(
        f"{item.field}: {item.deaths} workers died while they had this input; it is not tried again for "
        f"{REMEMBERED_SECONDS / 60:g} minutes"
    )


def _key(item: Item) -> bytes:
    # With other options it is the same input to the model.
    digest = hashlib.blake2b(_encode((item.pool, item.wire.content)), digest_size=16)
    if item.query is not None:
        digest.update(_encode(item.query.content))
    return digest.digest()
