"""A simulated router: the real dispatcher, queue and replica states. No HTTP, no bulk, no failures."""

import math
import random
import time
from collections.abc import Callable, Sequence

from triptych.loadtests.simulate.profiles import Setup, default
from triptych.loadtests.simulate.simulated_engine import Engine, Events
from triptych.router.errors import RouterError
from triptych.router.items import Batch, Item, Job
from triptych.router.observe.metrics import Metrics
from triptych.router.pool.dispatcher import Dispatcher
from triptych.router.pool.observer import PoolObserver
from triptych.router.pool.queue import PoolQueue
from triptych.router.pool.replica import Replica, State
from triptych.workers.shared import contract

POOL: contract.PoolName = "retrieval"
WIRE = contract.Item(contract.Text("", "query"))
VECTOR = contract.Vector(0, 1, (1,), b"")
OBSERVER = PoolObserver(Metrics(), POOL, None, time.monotonic)
TIMEOUT_SECONDS = 60.0


class Router:
    """Runs the dispatcher as `triptych.router.pool.pool.Pool` does. Calls `ended` once for each request."""

    def __init__(
        self,
        name: str,
        events: Events,
        setup: Setup,
        engines: Sequence[Engine],
        ended: Callable[[Job], None],
    ) -> None:
        self._events, self._ended = events, ended
        self._half_call = setup.profile.call_seconds / 2
        # Each router has its own order of replicas, as in the deployment.
        order = random.Random(name).sample(engines, len(engines))
        self._engines = {
            Replica(f"{number}", POOL, setup.lanes): engine for number, engine in enumerate(order)
        }
        for replica in self._engines:
            replica.state = State.READY
        queue = PoolQueue(default("queue_tokens"), default("queue_items"))
        sizes = default("batch_tokens"), setup.batch_items
        self._dispatcher = Dispatcher(
            POOL, list(self._engines), queue, *sizes, OBSERVER, events.now, math.inf
        )

    def arrive(self, tokens: int) -> None:
        """Admit or refuse a request of one input."""
        now = self._events.now
        job = Job([Item(POOL, WIRE, tokens, 0, "input")], now, now + TIMEOUT_SECONDS, self._ended)
        try:
            self._dispatcher.check_room(job.items, now, job.deadline)
        except RouterError as error:
            job.fail(error, now)
            return
        self._dispatcher.admit(job.items, now)
        self._dispatch()

    def _dispatch(self) -> None:
        now = self._events.now
        while (found := self._dispatcher.next(now)) is not None:
            self._send(*found)

    def _send(self, replica: Replica, batch: Batch) -> None:
        sent, tokens = self._events.now, replica.tokens_in_flight

        def answer() -> None:
            self._events.after(self._half_call, self._answered, replica, batch, tokens, sent)

        self._events.after(self._half_call, self._engines[replica].give, batch, answer)

    def _answered(self, replica: Replica, batch: Batch, tokens: int, sent: float) -> None:
        now = self._events.now
        for item in batch.items:
            self._dispatcher.deliver(batch, item, VECTOR, now)
        self._dispatcher.answered(replica, batch, tokens, sent, now)
        self._dispatcher.ended(replica, batch, now)
        self._dispatch()
