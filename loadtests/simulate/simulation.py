"""A simulated deployment of one pool: the real dispatcher, queue and replica states, with simulated time.

There are no HTTP, no bulk and no failures.
"""

import heapq
import itertools
import math
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from scipy import stats

from triptych.loadtests.simulate.profiles import Profile, Setup, default
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
BLOCKS = 10

_Waiting = tuple[Batch, Callable[[], None]]


@dataclass(slots=True)
class Outcome:
    """Requests that arrived after the warm-up; `failed` were refused or late.

    `latency` has the seconds of served requests, in order of completion. `busy` is the share of the
    replicas' time that their engines spent in steps.
    """

    requests: int = 0
    failed: int = 0
    latency: list[float] = field(default_factory=list)
    busy: float = 0.0


class Events:
    """Calls actions in order of time (seconds). Actions of one time keep their order."""

    def __init__(self) -> None:
        self.now = 0.0
        self._numbers = itertools.count()
        self._heap: list[tuple[float, int, Callable[..., object], tuple[object, ...]]] = []

    def after(self, seconds: float, action: Callable[..., object], *args: object) -> None:
        """Call `action` in `seconds`."""
        heapq.heappush(self._heap, (self.now + seconds, next(self._numbers), action, args))

    def run(self, until: float = math.inf) -> None:
        """Run all events up to `until`, by default until there are no more."""
        while self._heap and self._heap[0][0] <= until:
            self.now, _, action, args = heapq.heappop(self._heap)
            action(*args)
        if until < math.inf:
            self.now = until


class Engine:
    """Runs steps one after another over the batches that wait. `busy` counts the seconds of all steps begun.

    vLLM fills its steps by the item and may split an item. Here a batch waits until it fits.
    """

    def __init__(self, events: Events, profile: Profile, draw: random.Random) -> None:
        self.busy = 0.0
        self._idle = True
        self._events, self._profile, self._draw = events, profile, draw
        self._line: deque[_Waiting] = deque()

    def give(self, batch: Batch, done: Callable[[], None]) -> None:
        """Queue `batch`. `done` is called at the end of its step."""
        self._line.append((batch, done))
        if self._idle:
            self._step()

    def _step(self) -> None:
        taken: list[_Waiting] = []
        items = tokens = 0
        while self._line:
            batch, _ = self._line[0]
            more_items, more_tokens = items + len(batch.items), tokens + batch.tokens
            if taken and (more_items > self._profile.step_items or more_tokens > self._profile.step_tokens):
                break
            items, tokens = more_items, more_tokens
            taken.append(self._line.popleft())
        self._idle = not taken
        if taken:
            seconds = self._profile.step(items, tokens) * self._profile.noise(self._draw)
            self.busy += seconds
            self._events.after(seconds, self._end, taken)

    def _end(self, taken: list[_Waiting]) -> None:
        # The next step begins before the replies leave, so a lane's next batch misses it.
        self._step()
        for _, done in taken:
            done()


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
        self._engines = {Replica(str(number), POOL, setup.lanes): one for number, one in enumerate(order)}
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
        now, after = self._events.now, self._events.after
        while (found := self._dispatcher.next(now)) is not None:
            replica, batch = found
            sent = replica, batch, replica.tokens_in_flight, now
            answer = partial(after, self._half_call, self._answered, *sent)
            after(self._half_call, self._engines[replica].give, batch, answer)

    def _answered(self, replica: Replica, batch: Batch, tokens: int, sent: float) -> None:
        now = self._events.now
        for item in batch.items:
            self._dispatcher.deliver(batch, item, VECTOR, now)
        self._dispatcher.answered(replica, batch, tokens, sent, now)
        self._dispatcher.ended(replica, batch, now)
        self._dispatch()


def simulate(setup: Setup, load: float, seconds: float, warm_up: float = 0.0) -> Outcome:
    """A run under Poisson arrivals at `load` times the capacity of all replicas, `seconds` after `warm_up`.

    Requests of the warm-up are served but not counted. The run ends when all are done.
    """
    events, outcome = Events(), Outcome()
    arrivals, service = random.Random(f"{setup.seed} a"), random.Random(f"{setup.seed} s")
    rate, end = load * setup.capacity * setup.replicas, warm_up + seconds

    def arrive() -> None:
        gap = arrivals.expovariate(rate)
        if events.now + gap < end:
            events.after(gap, arrive)
        router = routers[arrivals.randrange(len(routers))]
        outcome.requests += events.now >= warm_up
        router.arrive(setup.lengths.draw(arrivals))

    def ended(job: Job) -> None:
        if job.admitted_at < warm_up:
            return
        if job.error is not None or job.done_at > job.deadline:
            outcome.failed += 1
        else:
            outcome.latency.append(job.done_at - job.admitted_at)

    engines = [Engine(events, setup.profile, service) for _ in range(setup.replicas)]
    names = (f"{setup.seed} {index}" for index in range(setup.routers))
    routers = [Router(name, events, setup, engines, ended) for name in names]
    events.after(arrivals.expovariate(rate), arrive)
    events.run(warm_up)
    before = sum(engine.busy for engine in engines)
    events.run(end)
    outcome.busy = (sum(engine.busy for engine in engines) - before) / (setup.replicas * seconds)
    events.run()
    return outcome


def percentile(values: Sequence[float], share: float) -> float:
    """By nearest rank. NaN without values."""
    return float(np.quantile(values, share, method="inverted_cdf")) if len(values) else math.nan


def uncertainty(values: Sequence[float], share: float) -> float:
    """Half of the 95 % confidence interval of a percentile. NaN for fewer than 100 values.

    Requests that are close in time depend on each other. So the values, in order of time, are cut into
    blocks, whose percentiles are nearly independent.
    """
    if len(values) < 10 * BLOCKS:
        return math.nan
    blocks = [np.quantile(block, share) for block in np.array_split(np.asarray(values), BLOCKS)]
    return float(stats.t.ppf(0.975, BLOCKS - 1) * stats.sem(blocks))
