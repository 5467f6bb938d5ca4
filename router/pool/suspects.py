"""Queries of death: items that were in flight when a worker's process died (pure).

Such an item may have killed it. It is tried once more, with a replica to itself; if that dies too, the item
fails for good. Items are remembered by a hash, so that one that is sent again kills no more workers.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from triptych.router.errors import CrashesWorker
from triptych.router.items import Item

DEATHS_UNTIL_REFUSED = 2
REMEMBERED_SECONDS = 600.0
MOST_REMEMBERED = 10_000

_encode = msgspec.msgpack.Encoder().encode


class _Deaths(NamedTuple):
    """Number of deaths, the process that died last, and when."""

    number: int
    instance: str
    at: float


class Suspects:
    """Number of worker deaths for each item in flight.

    Items with the same content count as one. A death counts once, however many copies were in flight.
    """

    def __init__(self) -> None:
        self._deaths: OrderedDict[bytes, _Deaths] = OrderedDict()

    def check(self, items: Sequence[Item], now: float) -> None:
        """Set `deaths` of new items. Raises `CrashesWorker` for one with too many."""
        for _, error in self._refused(items, now):
            raise error

    def died(
        self, in_flight: Sequence[Item], waiting: Sequence[Item], instance: str, now: float
    ) -> list[tuple[Item, CrashesWorker]]:
        """The process `instance` died with `in_flight`; returns the items that are refused now."""
        for item in in_flight:
            key = _key(item)
            known = self._deaths.get(key, _Deaths(item.deaths, "", now))
            item.deaths = known.number + (instance != known.instance)
            self._deaths[key] = _Deaths(item.deaths, instance, now)
            self._deaths.move_to_end(key)
            if len(self._deaths) > MOST_REMEMBERED:
                self._deaths.popitem(last=False)
        return self._refused([*in_flight, *waiting], now)

    def _refused(self, items: Sequence[Item], now: float) -> list[tuple[Item, CrashesWorker]]:
        while self._deaths:
            key, oldest = next(iter(self._deaths.items()))
            if now - oldest.at < REMEMBERED_SECONDS:
                break
            del self._deaths[key]
        if not self._deaths:
            return []
        for item in items:
            known = self._deaths.get(_key(item))
            item.deaths = known.number if known else 0
        return [(item, _refusal(item)) for item in items if item.deaths >= DEATHS_UNTIL_REFUSED]

    def clear(self, item: Item) -> None:
        """`item` has its result: it is no cause of a death."""
        self._deaths.pop(_key(item), None)
        item.deaths = 0


def _refusal(item: Item) -> CrashesWorker:
    return CrashesWorker(
        f"{item.field}: {item.deaths} workers died while encoding this input; it is not tried again for "
        f"{REMEMBERED_SECONDS / 60:g} minutes"
    )


def _key(item: Item) -> bytes:
    # Options do not change what the model reads.
    digest = hashlib.blake2b(_encode((item.pool, item.wire.content)), digest_size=16)
    if item.query is not None:
        digest.update(_encode(item.query.content))
    return digest.digest()
