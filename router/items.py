"""An item on its way, and the request that waits for all of its items (pure: times are passed in)."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING

import msgspec

from router.media.formats import Media
from workers.shared import contract

if TYPE_CHECKING:
    from opentelemetry.trace import Span


@dataclasses.dataclass(slots=True, eq=False)
class Query:
    """What the documents of a ranking are held against. A batch has it once, and so reads it once.

    `cost` is an estimate in tokens.
    """

    content: contract.Text | contract.Image
    cost: int


Required = Mapping[str, frozenset[str]]
"""The vector spaces that a client takes, by pool; "" stands for every pool that is not named."""


class Place(IntEnum):
    """Where an item is. DONE is left only when its request starts over in another vector space."""

    PLANNED = 0
    WAITING = 1
    TAKEN = 2
    DONE = 3


@dataclasses.dataclass(slots=True, eq=False)
class Item:
    """One thing to embed: what goes over the wire, and what the router must know about it.

    `cost` is an estimate in tokens; `index` the place in its request's reply; `field` names it in errors.
    `media` is what must be loaded and put into `wire` before the item may enter a queue, if anything.
    `query` is what it is held against, if anything; its cost is not in that of the item.
    `tries` counts its failures, `deaths` the workers that died with it in flight.
    """

    pool: contract.PoolName
    wire: contract.Item
    cost: int
    index: int
    field: str
    bulk: bool = False
    media: Media | None = None
    query: Query | None = None
    tries: int = 0
    deaths: int = 0
    place: Place = Place.PLANNED
    gather: "Gather" = dataclasses.field(init=False, repr=False)
    batch: "Batch | None" = dataclasses.field(default=None, repr=False)

    @property
    def failed_before(self) -> bool:
        """Whether it is not tried for the first time."""
        return self.tries > 0 or self.deaths > 0


def queries_of(items: Iterable[Item]) -> list[Query]:
    """What `items` are held against, each once."""
    return list(dict.fromkeys(item.query for item in items if item.query is not None))


def cost_of(items: Sequence[Item]) -> int:
    """What `items` cost together, in tokens."""
    return sum(item.cost for item in items) + sum(query.cost for query in queries_of(items))


def size_of(content: contract.Text | contract.Image | contract.Document) -> int:
    """About how many bytes are sent for it: of a text at least as many."""
    match content:
        case contract.Text():
            return len(content.text)
        case contract.Image():
            return len(content.data)
        case contract.Document():
            return sum(map(len, content.chunks))


class Batch:
    """Items that one lane of a replica works on together, all of one class.

    `abort` is called once, when the last item that anybody still wants has left it. `headers` go with it to
    the worker. `space` is the vector space that its results have to be of.
    """

    __slots__ = ("abort", "bulk", "headers", "items", "space", "tokens", "wanted")

    def __init__(self, items: list[Item]) -> None:
        self.items = items
        self.tokens = cost_of(items)
        self.bulk = items[0].bulk
        self.wanted = len(items)
        self.abort: Callable[[], object] | None = None
        self.headers: dict[str, str] = {}
        self.space = ""
        for item in items:
            item.place = Place.TAKEN
            item.batch = self

    def request(self) -> contract.EncodeRequest:
        """What goes to the worker."""
        places = {query: place for place, query in enumerate(queries_of(self.items))}
        items = [
            item.wire
            if item.query is None
            else msgspec.structs.replace(item.wire, against=places[item.query])
            for item in self.items
        ]
        queries = [query.content for query in places]
        return contract.EncodeRequest(items, priority=int(self.bulk), queries=queries, alone=self.suspect)

    @property
    def suspect(self) -> bool:
        """Whether it is one item that a worker died with."""
        return self.items[0].deaths > 0

    def leave(self, item: Item, *, unwanted: bool = False) -> None:
        """Take `item` out: it has its result, goes back to the queue, or (`unwanted`) nobody waits for it."""
        item.batch = None
        self.wanted -= 1
        if unwanted and self.wanted == 0 and self.abort is not None:
            self.abort()

    def unfinished(self) -> list[Item]:
        """The items that are still its own, in order."""
        return [item for item in self.items if item.batch is self]


class Gather:
    """The results of one request's items, in input order, however they arrive.

    `finished` is called once: when the last result is in, or at the first error. `request_id` and `span`
    tell logs and traces whose items these are.

    `spaces` maps each pool to the one vector space of its results. `required` has the spaces that the client
    takes of a pool, and under "" those that it takes of every other pool; no entry means any.
    """

    __slots__ = (
        "admitted_at",
        "deadline",
        "done_at",
        "error",
        "finished",
        "items",
        "request_id",
        "required",
        "results",
        "spaces",
        "span",
        "taken_at",
        "waiting_for",
    )

    def __init__(
        self,
        items: Sequence[Item],
        now: float,
        deadline: float,
        finished: Callable[["Gather"], None],
        request_id: str = "",
        span: "Span | None" = None,
        required: Required | None = None,
    ) -> None:
        if not items:
            raise ValueError("a request without items has nothing to gather. This is a bug.")
        self.items = items
        self.results: list[contract.Vector | None] = [None] * len(items)
        self.waiting_for = len(items)
        self.admitted_at = now
        self.taken_at = now
        self.done_at = now
        self.deadline = deadline
        self.error: Exception | None = None
        self.finished = finished
        self.request_id = request_id
        self.span = span
        self.required: Required = required or {}
        self.spaces: dict[contract.PoolName, str] = {}
        for item in items:
            item.gather = self

    @property
    def closed(self) -> bool:
        """Whether nothing more can change."""
        return self.error is not None or self.waiting_for == 0

    def takes(self, pool: contract.PoolName, space: str) -> bool:
        """Whether results of `pool` may be of `space`."""
        if pool in self.spaces:
            return self.spaces[pool] == space
        required = self.required_of(pool)
        return not required or space in required

    def required_of(self, pool: contract.PoolName) -> frozenset[str]:
        """The spaces that results of `pool` may be of, empty for any."""
        return self.required.get(pool) or self.required.get("", frozenset())

    def start_over(self, pool: contract.PoolName) -> list[Item]:
        """Forget the results of `pool`; returns the items that were done and have to be done again."""
        self.spaces.pop(pool, None)
        done = [item for item in self.items if item.pool == pool and self.results[item.index] is not None]
        for item in done:
            self.results[item.index] = None
        self.waiting_for += len(done)
        return done

    def resolve(self, item: Item, vector: contract.Vector, now: float) -> None:
        """`item` has its result."""
        if self.closed:
            return
        if self.results[item.index] is not None:
            raise RuntimeError(f"{item.field} was given two results. This is a bug.")
        self.results[item.index] = vector
        item.place = Place.DONE
        self.waiting_for -= 1
        if self.waiting_for == 0:
            self.done_at = now
            self.finished(self)

    def fail(self, error: Exception, now: float) -> None:
        """The request ends with `error`; of several, the first stands."""
        if self.closed:
            return
        self.error = error
        self.done_at = now
        self.finished(self)

    def vectors(self) -> list[contract.Vector]:
        """All results, in input order; raises the error of a request that failed."""
        if self.error is not None:
            raise self.error.with_traceback(None)
        vectors = [vector for vector in self.results if vector is not None]
        if len(vectors) != len(self.items):
            raise RuntimeError("a request was read before all its results were in. This is a bug.")
        return vectors
