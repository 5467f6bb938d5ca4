"""Items to embed, batches of them, and the job that collects the results of one request (pure)."""

import dataclasses
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING

import msgspec

from triptych.router.media.formats import Media
from triptych.workers.shared import contract

if TYPE_CHECKING:
    from opentelemetry.trace import Span


# Larger requests are bulk, whatever the client asks for: four batches would hold up all other queries.
MOST_INTERACTIVE_ITEMS, MOST_INTERACTIVE_TOKENS = 128, 16_384


class Priority(IntEnum):
    """Interactive work goes before bulk work, which keeps a guaranteed share."""

    INTERACTIVE = 0
    BULK = 1

    @property
    def label(self) -> str:
        return self.name.lower()


class ItemState(IntEnum):
    """Where an item is. DROPPED and DONE are terminal, unless its job starts over in another vector space.

    DROPPED items left the queue without a replica, DONE ones were with a replica.
    """

    PLANNED = 0
    WAITING = 1
    IN_FLIGHT = 2
    DONE = 3
    DROPPED = 4


RequiredSpaces = Mapping[str, frozenset[str]]
"""The vector spaces that a client accepts, by pool; "" stands for every pool that is not named."""


@dataclasses.dataclass(slots=True, eq=False)
class Query:
    """The query of a ranking. A batch carries it once, whatever the number of documents.

    `cost` is an estimate in tokens; `field` names the query in errors.
    """

    content: contract.Text | contract.Image
    cost: int
    field: str


@dataclasses.dataclass(slots=True, eq=False)
class Item:
    """One input to embed: what is sent to the worker, and what the router keeps about it.

    `cost` is an estimate in tokens; `index` the position in the reply; `field` names the input in errors.
    `pool` is its task's, also if a shared pool serves it: then `wire` names the adapter.
    `media` is loaded into `wire` before the item enters a queue. `query` is what a document is scored
    against; its cost is not part of the item's. `tries` counts failed attempts, `deaths` the worker
    processes that died with the item in flight.
    """

    pool: contract.PoolName
    wire: contract.Item
    cost: int
    index: int
    field: str
    priority: Priority = Priority.INTERACTIVE
    media: Media | None = None
    query: Query | None = None
    tries: int = 0
    deaths: int = 0
    state: ItemState = ItemState.PLANNED
    job: "Job" = dataclasses.field(init=False, repr=False)
    batch: "Batch | None" = dataclasses.field(default=None, repr=False)

    @property
    def failed_before(self) -> bool:
        return self.tries > 0 or self.deaths > 0

    def space_of(self, space: str) -> str:
        """The vector space of its result from a worker that serves `space`."""
        adapter = self.wire.adapter
        return space if adapter is None else contract.adapter_space(space, adapter)

    def accepts(self, space: str) -> bool:
        """Whether a worker that serves `space` may encode it."""
        return self.job.accepts(self.pool, self.space_of(space))

    @property
    def was_sent(self) -> bool:
        """Whether a worker has worked on it, or may have."""
        return self.tries > 0 or self.state in (ItemState.IN_FLIGHT, ItemState.DONE)


def queries_of(items: Iterable[Item]) -> list[Query]:
    """The queries of `items`, each once."""
    return list(dict.fromkeys(item.query for item in items if item.query is not None))


def cost_of(items: Sequence[Item]) -> int:
    """The cost of `items` with their queries, in tokens."""
    return sum(item.cost for item in items) + sum(query.cost for query in queries_of(items))


def bound_priority(items: Sequence[Item], tokens: int) -> None:
    """Make the `items` of one request, which cost `tokens`, bulk if they are too many to be interactive."""
    if len(items) > MOST_INTERACTIVE_ITEMS or tokens > MOST_INTERACTIVE_TOKENS:
        for item in items:
            item.priority = Priority.BULK


def size_of(content: contract.Text | contract.Image | contract.Document) -> int:
    """Bytes that `content` takes in memory, about as many as on the wire."""
    if isinstance(content, contract.Text):
        return sys.getsizeof(content.text)
    if isinstance(content, contract.Image):
        return len(content.data)
    return sum(map(sys.getsizeof, content.chunks))


class Batch:
    """Items of one priority that a replica encodes together, in one of its lanes.

    `abort` is called once, when the last item that a client waits for has left. `headers` are sent to the
    worker. `space` is the vector space that the results must have. `failures` are the messages of items that
    failed inside the engine, which may be tried again. `unanswered` are the items that the worker still has,
    also if no client waits for them.
    """

    def __init__(self, items: list[Item]) -> None:
        self.items = items
        self.tokens = cost_of(items)
        self.priority = items[0].priority
        self.wanted = len(items)
        self.abort: Callable[[], object] | None = None
        self.headers: dict[str, str] = {}
        self.space = ""
        self.failures: list[str] = []
        self.unanswered = set(items)
        for item in items:
            item.state = ItemState.IN_FLIGHT
            item.batch = self

    def request(self) -> contract.EncodeRequest:
        positions = {query: position for position, query in enumerate(queries_of(self.items))}
        items = [
            item.wire
            if item.query is None
            else msgspec.structs.replace(item.wire, against=positions[item.query])
            for item in self.items
        ]
        queries = [query.content for query in positions]
        return contract.EncodeRequest(items, priority=self.priority, queries=queries, alone=self.suspect)

    @property
    def suspect(self) -> bool:
        """Whether this is a single item that a worker died with."""
        return self.items[0].deaths > 0

    def remove(self, item: Item, *, unwanted: bool = False) -> None:
        """Take `item` out: it is done, returns to the queue, or (`unwanted`) no client waits for it."""
        item.batch = None
        self.wanted -= 1
        if unwanted and self.wanted == 0 and self.abort is not None:
            self.abort()

    def unfinished(self) -> list[Item]:
        return [item for item in self.items if item.batch is self]


@dataclasses.dataclass(slots=True, eq=False)
class Job:
    """The items of one request, admitted together; holds their results in input order.

    `finished` is called once: with the last result, or at the first error. `request_id` and `span` identify
    the request in logs and traces. `deadline` is absolute, on the pool's clock; the request's own timeout
    enforces it. `key` is the name of the API key, empty without keys.

    `spaces` maps each pool to the one vector space of its results; `required` are the spaces that the client
    accepts.
    """

    items: Sequence[Item]
    admitted_at: float
    deadline: float
    finished: Callable[["Job"], None]
    request_id: str = ""
    span: "Span | None" = None
    required: RequiredSpaces = dataclasses.field(default_factory=dict)
    key: str = ""
    spaces: dict[contract.PoolName, str] = dataclasses.field(default_factory=dict)
    error: Exception | None = None
    results: list[contract.Vector | None] = dataclasses.field(init=False)
    missing: int = dataclasses.field(init=False)
    started_at: float = dataclasses.field(init=False)
    done_at: float = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        if not self.items:
            raise ValueError("a job without items. This is a bug.")
        self.results = [None] * len(self.items)
        self.missing = len(self.items)
        self.started_at = self.done_at = self.admitted_at
        for item in self.items:
            item.job = self

    @property
    def closed(self) -> bool:
        """Whether it has all results or an error."""
        return self.error is not None or self.missing == 0

    def accepts(self, pool: contract.PoolName, space: str) -> bool:
        """Whether results of `pool` may be in `space`."""
        if pool in self.spaces:
            return self.spaces[pool] == space
        required = self.required_of(pool)
        return not required or space in required

    def required_of(self, pool: contract.PoolName) -> frozenset[str]:
        """The spaces that the client accepts of `pool`; empty for any."""
        return self.required.get(pool) or self.required.get("", frozenset())

    def start_over(self, pool: contract.PoolName) -> list[Item]:
        """Drop the results of `pool`; returns the items that have to be encoded again."""
        self.spaces.pop(pool, None)
        done = [item for item in self.items if item.pool == pool and self.results[item.index] is not None]
        for item in done:
            self.results[item.index] = None
        self.missing += len(done)
        return done

    def resolve(self, item: Item, vector: contract.Vector, now: float) -> None:
        """Store the result of `item`."""
        if self.closed:
            return
        if self.results[item.index] is not None:
            raise RuntimeError(f"{item.field} was given two results. This is a bug.")
        self.results[item.index] = vector
        item.state = ItemState.DONE
        self.missing -= 1
        if self.missing == 0:
            self.done_at = now
            self.finished(self)

    def fail(self, error: Exception, now: float) -> None:
        """End with `error`, unless it has ended; the first error stands."""
        if self.closed:
            return
        self.error = error
        self.done_at = now
        self.finished(self)

    def release(self) -> None:
        """Drop the items and results of a job that is closed or was not admitted.

        Each item refers to its job, so they would stay in memory until the next garbage collection.
        """
        self.items = ()
        self.results = []
        # It refers to the request.
        self.finished = lambda _: None

    def vectors(self) -> list[contract.Vector]:
        """All results, in input order. Raises the error of a failed job."""
        if self.error is not None:
            raise self.error.with_traceback(None)
        vectors = [vector for vector in self.results if vector is not None]
        if len(vectors) != len(self.items):
            raise RuntimeError("a job was read before all its results were in. This is a bug.")
        return vectors
