"""Queries of death: items that were in flight when a worker's process died (pure).

Such an item may be what killed it. It is tried once more, with a replica to itself; when that dies too, the
item fails for good. Items are remembered by a hash, so that one that is sent again kills no more workers.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from router.errors import CrashesWorker
from router.items import Item

DEATHS_UNTIL_REFUSED = 2
REMEMBERED_SECONDS = 600.0
MOST_REMEMBERED = 10_000

_encode = msgspec.msgpack.Encoder().encode


class _Deaths(NamedTuple):
    """How many, the process that died last, and when."""

    number: int
    instance: str
    at: float


class Suspects:
    """How many deaths each item was in flight at.

    Items of the same content count as one, and a death counts once for each, however many copies died in it.
    """

    def __init__(self) -> None:
        self._deaths: OrderedDict[bytes, _Deaths] = OrderedDict()

    def check(self, items: Iterable[Item], now: float) -> None:
        """Set `deaths` of items that have just arrived. Raises `CrashesWorker` for one that had too many."""
        for item in self.refused(items, now):
            raise refusal_of(item)

    def refused(self, items: Iterable[Item], now: float) -> list[Item]:
        """Set `deaths` of `items`; returns those that had too many."""
        self._forget_old(now)
        if not self._deaths:
            return []
        items = list(items)
        for item in items:
            known = self._deaths.get(_key(item))
            item.deaths = known.number if known else 0
        return [item for item in items if item.deaths >= DEATHS_UNTIL_REFUSED]

    def died(self, item: Item, instance: str, now: float) -> CrashesWorker | None:
        """The process `instance` died with `item` in flight; returns the error of one that is refused now."""
        key = _key(item)
        known = self._deaths.get(key, _Deaths(item.deaths, "", now))
        item.deaths = known.number + (instance != known.instance)
        self._deaths[key] = _Deaths(item.deaths, instance, now)
        self._deaths.move_to_end(key)
        if len(self._deaths) > MOST_REMEMBERED:
            self._deaths.popitem(last=False)
        return refusal_of(item) if item.deaths >= DEATHS_UNTIL_REFUSED else None

    def clear(self, item: Item) -> None:
        """`item` has been served: it kills no worker."""
        self._deaths.pop(_key(item), None)
        item.deaths = 0

    def _forget_old(self, now: float) -> None:
        while self._deaths:
            key, deaths = next(iter(self._deaths.items()))
            if now - deaths.at < REMEMBERED_SECONDS:
                return
            del self._deaths[key]


def refusal_of(item: Item) -> CrashesWorker:
    """The error of an item that had too many deaths."""
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
