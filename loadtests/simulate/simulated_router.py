"""A simulated router: the real queue, dispatcher and paces, without HTTP, bulk requests and failures."""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from deploy.ray.book import RouterReport
from deploy.ray.pressure import Pressure
from loadtests.simulate.events import Events
from loadtests.simulate.profiles import Profile
from loadtests.simulate.simulated_engine import Engine
from router.dispatcher import Dispatcher
from router.errors import QueueFull, TimedOut
from router.item import Batch, Gather, Item
from router.pace import Pace
from router.queue import PoolQueue
from router.settings import RouterSettings
from workers import contract

POOL: contract.PoolName = "retrieval"
WIRE = contract.Item(contract.Text("", "query"))
VECTOR = contract.Vector(0, 1, (1,), b"")


def default(name: str) -> int:
    """The default of a router setting."""
    return int(RouterSettings.model_fields[name].default)


@dataclass(slots=True, eq=False)
class SimulatedReplica:
    """A replica as one router sees it: what the dispatcher reads (`router.shares.ReplicaState`)."""

    engine: Engine
    lanes: int
    lanes_in_use: int = 0
    bulk_lanes_in_use: int = 0
    tokens_in_flight: int = 0
    pace: Pace = field(default_factory=Pace)
    draining: bool = False
    quarantined: bool = False
    space: str = ""
    sound: bool = True

    def has_free_lane(self, now: float, *, bulk: bool = False) -> bool:
        return self.lanes_in_use < self.lanes

    def hold(self, batch: Batch) -> None:
        self.lanes_in_use += 1
        self.tokens_in_flight += batch.tokens

    def release(self, batch: Batch) -> None:
        self.lanes_in_use -= 1
        self.tokens_in_flight -= batch.tokens


class Router:
    """Does what `router.pool.Pool` does around its dispatcher. Calls `ended` once for each request.

    `drained` is called with an engine that was drained and has none of this router's batches left.
    """

    def __init__(
        self,
        name: str,
        events: Events,
        profile: Profile,
        lanes: int,
        batch_items: int,
        ended: Callable[[Gather], None],
        drained: Callable[[Engine], None] = lambda engine: None,
    ) -> None:
        self.queue = PoolQueue(default("queue_tokens"), default("queue_items"))
        self.replicas: list[SimulatedReplica] = []
        self._name = name
        self._events = events
        self._half_call = profile.call_seconds / 2
        self._lanes = lanes
        self._ended = ended
        self._drained = drained
        self._dispatcher = Dispatcher(self.queue, default("batch_tokens"), batch_items)
        # Each router has its own order of replicas, as in the deployment.
        self._order = random.Random(name)
        self._arrived_tokens = self._running_tokens = 0
        self.queue.hold()

    def report(self) -> RouterReport:
        """The report that `deploy.ray.router` would send to the directory."""
        pressure = Pressure(self.queue.tokens, self._running_tokens)
        return RouterReport(
            self._name, "", self._name, pressures={POOL: pressure}, arrived={POOL: self._arrived_tokens}
        )

    def add(self, engine: Engine, learned: Iterable[tuple[int, float]] = ()) -> None:
        """Add a replica. `learned` are its earlier batches, as tokens and seconds."""
        replica = SimulatedReplica(engine, self._lanes)
        for tokens, seconds in learned:
            replica.pace.observe(tokens, seconds)
        if not self.replicas:
            self.queue.release(self._events.now)
        self.replicas.insert(self._order.randint(0, len(self.replicas)), replica)
        self.dispatch()

    def drain(self, engine: Engine) -> None:
        """Give a replica no more batches."""
        [replica] = [replica for replica in self.replicas if replica.engine is engine]
        self.replicas.remove(replica)
        replica.draining = True
        if not self.replicas:
            self.queue.hold()
        if not replica.lanes_in_use:
            self._drained(engine)

    def arrive(self, tokens: int, timeout_seconds: float) -> None:
        """Admit or refuse a request of one input."""
        now = self._events.now
        self._arrived_tokens += tokens
        item = Item(POOL, WIRE, tokens, 0, "input")
        gather = Gather([item], now, now + timeout_seconds, self._ended)
        try:
            self.queue.check_room(gather.items, now, gather.deadline, self._running_tokens)
        except QueueFull as error:
            gather.fail(error, now)
            return
        self.queue.admit(gather.items, now)
        self.dispatch()

    def dispatch(self) -> None:
        """Send batches while there is work and a free lane."""
        now = self._events.now
        while self.queue.items:
            replica, batch, expired = self._dispatcher.next(self.replicas, now, beside_queries=True)
            for item in expired:
                item.gather.fail(TimedOut("too late"), now)
            if replica is not None and batch is not None:
                self._start(replica, batch)
            elif not expired:
                return

    def _start(self, replica: SimulatedReplica, batch: Batch) -> None:
        now = self._events.now
        for item in batch.items:
            item.gather.taken_at = now
        replica.hold(batch)
        self._running_tokens += batch.tokens
        in_flight = replica.tokens_in_flight

        def answer() -> None:
            self._events.at(self._events.now + self._half_call, self._finish, replica, batch, in_flight, now)

        self._events.at(now + self._half_call, replica.engine.give, batch, answer)

    def _finish(self, replica: SimulatedReplica, batch: Batch, in_flight: int, started: float) -> None:
        now = self._events.now
        for item in batch.items:
            batch.leave(item)
            self.queue.drained(item, now)
            item.gather.resolve(item, VECTOR, now)
        replica.pace.observe(in_flight, now - started)
        self._dispatcher.ordinary = replica.pace
        replica.release(batch)
        self._running_tokens -= batch.tokens
        if replica.draining and not replica.lanes_in_use:
            self._drained(replica.engine)
        self.dispatch()
