"""One simulated router: the real queue, shares and paces, with time passed in; no HTTP and no failures."""

import heapq
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, cast

from router.pool.shares import share_of, takes_bulk

from deploy.ray.book import RouterReport
from deploy.ray.pressure import Pressure
from loadtests.simulate.engine import Engine
from loadtests.simulate.events import Events
from loadtests.simulate.profiles import Profile
from router.errors import QueueFull, TimedOut
from router.items import Batch, Gather, Item
from router.pool.pace import Pace
from router.pool.pool import QUERIES_SECONDS
from router.pool.queue import PoolQueue
from router.pool.replica import Replica, State
from router.pool.transport import WorkerClient
from router.settings import RouterSettings
from workers.shared import contract

POOL: contract.PoolName = "retrieval"
WIRE = contract.Item(contract.Text("", "query"))
VECTOR = contract.Vector(0, 1, (1,), b"")

Key = tuple[float, int, float]

# Judging a replica's pace looks at those of all others. With twice as many replicas as this, or more, only
# some of the batches are judged by, to save time: that a replica is slow is then seen later than in a router.
JUDGED_EVERY = 16


def default(name: str) -> int:
    """What a setting of the router is unless set."""
    return int(RouterSettings.model_fields[name].default)


class _Together(Sequence[Replica]):
    """Many replicas as `share_of` sees them: how many there are, and what they have in all.

    Adding that up over 1,000 for each batch would be most of what the simulation does.
    """

    def __init__(self) -> None:
        self.size = 0
        self._all = Replica("all", POOL, 1, cast(WorkerClient, None))

    def add(self, count: int, tokens: int) -> None:
        """So many more, which have `tokens`; both may be negative."""
        self.size += count
        self._all.tokens_in_flight += tokens

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: Any) -> Any:
        return [self._all][index]


class _Free:
    """Replicas with a free lane in the order of their keys: the seconds that what each has will take, its
    tokens, and its place in the router's own list.

    A heap, in which those whose key has changed stay until they come up.
    """

    def __init__(self) -> None:
        self.keys: dict[Replica, Key] = {}
        self._heap: list[tuple[Key, Replica]] = []

    def put(self, view: Replica, key: Key) -> None:
        self.keys[view] = key
        heapq.heappush(self._heap, (key, view))
        if len(self._heap) > 4 * len(self.keys) + 64:
            self._heap = [(key, view) for view, key in self.keys.items()]
            heapq.heapify(self._heap)

    def first(self) -> Replica | None:
        while self._heap:
            key, view = self._heap[0]
            if self.keys.get(view) == key:
                return view
            heapq.heappop(self._heap)
        return None


class Router:
    """As `router.pool.pool.Pool.dispatch` hands out, with free replicas kept instead of looked for.

    `ended` is called with each request that ended, once.
    """

    def __init__(
        self,
        id: str,
        events: Events,
        profile: Profile,
        lanes: int,
        batch_items: int,
        ended: Callable[[Gather], None],
    ) -> None:
        self.queue = PoolQueue(default("queue_tokens"), default("queue_items"))
        self.views: dict[Engine, Replica] = {}
        self._engines: dict[Replica, Engine] = {}
        self.drained: Callable[[Engine], None] = lambda engine: None
        self._id = id
        self._came_tokens = self._running_tokens = 0
        # Those whose pace is known and those whose pace is not: theirs is taken for that of the last batch,
        # which changes, but leaves them in the order of their tokens.
        self._known, self._unknown = _Free(), _Free()
        self._together = _Together()
        self._ordinary = Pace()
        # As the deployment has it, each router has the replicas in an order of its own.
        self._order = random.Random(id)
        self._places: dict[Replica, float] = {}
        self._events = events
        self._lanes = lanes
        self._half_call = profile.call_seconds / 2
        self._batch_tokens = default("batch_tokens")
        self._batch_items = batch_items
        self._ended = ended
        self._last_query = -QUERIES_SECONDS
        self._judged = 0
        self._serving = 0
        self.queue.hold()

    @property
    def pressure(self) -> Pressure:
        """What this router has to do."""
        return Pressure(self.queue.tokens, self._running_tokens)

    def report(self) -> RouterReport:
        """What this router tells the directory, as `deploy.ray.node_router` does."""
        return RouterReport(
            self._id, "", self._id, pressures={POOL: self.pressure}, arrived={POOL: self._came_tokens}
        )

    def add(self, engine: Engine, learned: Iterable[tuple[int, float]] = ()) -> None:
        """Use a replica from now on; `learned` are batches of before, in tokens and seconds."""
        client = cast(WorkerClient, None)  # Nothing here encodes.
        view = Replica(str(len(self.views)), POOL, self._lanes, client, lambda: self._events.now)
        view.state = State.READY
        for tokens, seconds in learned:
            view.pace.observe(tokens, seconds)
        self.views[engine] = view
        self._engines[view] = engine
        self._places[view] = self._order.random()
        self._look(view)
        self._serving += 1
        if self._serving == 1:
            self.queue.release(self._events.now)
        self.dispatch()

    def drain(self, engine: Engine) -> None:
        """Give a replica nothing more; `drained` is called when it has nothing of this router any more."""
        view = self.views[engine]
        view.state = State.DRAINING
        self._look(view)
        self._serving -= 1
        if not self._serving:
            self.queue.hold()
        self._forget_if_drained(engine, view)

    def arrive(self, tokens: int, bulk: bool, timeout_seconds: float) -> None:
        """A request of one input: admitted, or refused at once; either way it was asked for."""
        now = self._events.now
        self._came_tokens += tokens
        item = Item(POOL, WIRE, tokens, 0, "input", bulk)
        gather = Gather([item], now, now + timeout_seconds, self._ended)
        try:
            self.queue.check_room(gather.items, now, gather.deadline, self._running_tokens)
        except QueueFull as error:
            gather.fail(error, now)
            return
        if not bulk:
            self._last_query = now
        self.queue.admit(gather.items, now)
        self.dispatch()

    def dispatch(self) -> None:
        """Hand out batches while there is work and a replica with a free lane."""
        now, queue = self._events.now, self.queue
        while len(self._together) and queue.items:
            beside = now - self._last_query < QUERIES_SECONDS
            for_bulk: list[Replica] = []
            if queue.depth(bulk=True)[0]:
                for_bulk = [view for view in self._free() if takes_bulk(view, beside_queries=beside)]
            bulk = queue.next_class(self._batch_tokens, bulk_too=bool(for_bulk))
            if bulk is None:
                return
            able = for_bulk if bulk else self._together
            view = min(for_bulk, key=self._expected) if bulk else self._first()
            _, waiting = queue.depth(bulk=bulk)
            share = share_of(waiting, view, able, beside_queries=bulk and beside)
            batch, expired = queue.take(min(self._batch_tokens, share), self._batch_items, now, bulk=bulk)
            for item in expired:
                item.gather.fail(TimedOut("too late"), now)
            if batch is not None:
                self._start(view, batch)

    def _start(self, view: Replica, batch: Batch) -> None:
        now = self._events.now
        for item in batch.items:
            item.gather.taken_at = now
        view.hold(batch)
        self._running_tokens += batch.tokens
        self._look(view)
        engine = self._engines[view]
        in_flight = view.tokens_in_flight

        def answered() -> None:
            self._finish(engine, view, batch, in_flight, now)

        def done() -> None:
            self._events.at(self._events.now + self._half_call, answered)

        self._events.at(now + self._half_call, engine.give, batch, done)

    def _finish(self, engine: Engine, view: Replica, batch: Batch, in_flight: int, started: float) -> None:
        now = self._events.now
        for item in batch.items:
            batch.leave(item)
            self.queue.drained(item, now)
            item.gather.resolve(item, VECTOR, now)
        view.pace.observe(in_flight, now - started)
        self._ordinary = view.pace
        self._judged += 1
        if self._judged % max(1, len(self.views) // JUDGED_EVERY) == 0:
            view.pace.compare(other.pace for other in self.views.values() if other is not view)
        view.release(batch)
        self._running_tokens -= batch.tokens
        self._look(view)
        self._forget_if_drained(engine, view)
        self.dispatch()

    def _first(self) -> Replica:
        """Of those with a free lane, the one that would be done first."""
        first = [view for view in (self._known.first(), self._unknown.first()) if view is not None]
        return min(first, key=self._expected)

    def _expected(self, view: Replica) -> Key:
        """As `Dispatcher._expected`; equals in the order of the router's list."""
        tokens = view.tokens_in_flight
        pace = view.pace if view.pace.seconds_per_token else self._ordinary
        return pace.seconds(tokens), tokens, self._places[view]

    def _free(self) -> Iterator[Replica]:
        yield from self._known.keys
        yield from self._unknown.keys

    def _look(self, view: Replica) -> None:
        """Note whether `view` has a free lane, and when it would be done."""
        before = self._known.keys.pop(view, None) or self._unknown.keys.pop(view, None)
        if before:
            self._together.add(-1, -before[1])
        if view.has_free_lane(self._events.now):
            tokens = view.tokens_in_flight
            free = self._known if view.pace.seconds_per_token else self._unknown
            free.put(view, (view.pace.seconds(tokens), tokens, self._places[view]))
            self._together.add(1, tokens)

    def _forget_if_drained(self, engine: Engine, view: Replica) -> None:
        if view.state is State.DRAINING and not view.lanes_in_use:
            del self.views[engine], self._engines[view], self._places[view]
            self.drained(engine)
