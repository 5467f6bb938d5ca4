"""A dispatcher whose batches a test ends as it likes."""

from tests.unit.router.apps import info
from tests.unit.router.items import make_request, vector
from triptych.router.items import Batch, Item, Job
from triptych.router.observe.metrics import Metrics
from triptych.router.pool.call import ReplicaFailed
from triptych.router.pool.dispatcher import Dispatcher
from triptych.router.pool.observer import PoolObserver
from triptych.router.pool.queue import PoolQueue
from triptych.router.pool.replica import Replica
from triptych.workers.shared import contract


class Told(Dispatcher):
    """Has a ready replica for each of `lanes`. It dispatches what it can; the test ends the batches.

    Without an argument, `replica` is the first one.
    """

    def __init__(self, *lanes: int, batch_items: int = 8, hold_seconds: float = 0.0) -> None:
        self.now = 0.0
        replicas = [Replica(f"r:{number}", "retrieval", count) for number, count in enumerate(lanes)]
        self.metrics = Metrics()
        observer = PoolObserver(self.metrics, "retrieval", None, lambda: 0.0)
        queue = PoolQueue(10**6, 10**6)
        super().__init__("retrieval", replicas, queue, 10**6, batch_items, observer, 0.0, hold_seconds)
        self.replica = replicas[0]
        # Replica, batch, tokens in flight and time of each start.
        self.started: list[tuple[Replica, Batch, int, float]] = []
        for replica in replicas:
            replica.up(info("retrieval"))
            replica.changed = self.changed

    def changed(self) -> None:
        self.replicas_changed(self.now)
        self.dispatch()

    def dispatch(self) -> None:
        while found := self.next(self.now):
            replica, batch = found
            self.started.append((replica, batch, replica.tokens_in_flight, self.now))

    def ask(self, items: int = 1, *, bulk: bool = False) -> Job:
        """A job that was admitted and, if possible, dispatched."""

        def finished(job: Job) -> None:
            if job.error is not None:
                self.forget(job.items, self.now)
                self.dispatch()

        job = make_request([1] * items, bulk=bulk, finished=finished)
        self.admit(job.items, self.now)
        self.dispatch()
        return job

    def last(self, replica: Replica | None = None) -> list[Item]:
        """The items of the last batch of `replica`."""
        return [batch for one, batch, *_ in self.started if one is (replica or self.replica)][-1].items

    def _oldest(self, replica: Replica | None) -> tuple[Replica, Batch, int, float]:
        wanted = replica or self.replica
        return next(start for start in self.started if start[0] is wanted and start[1] in self.in_flight)

    def done(self, replica: Replica | None = None, *, failing_after: int | None = None) -> None:
        """Answer the oldest batch of `replica`; items after the first few may fail inside the engine."""
        replica, batch, tokens, at = self._oldest(replica)
        for number, item in enumerate(list(batch.items)):
            fails = failing_after is not None and number >= failing_after
            frame = contract.Failure(0, "internal", "told to") if fails else vector(item)
            self.deliver(batch, item, frame, self.now)
        self.answered(replica, batch, tokens, at, self.now)
        self.ended(replica, batch, self.now)
        self.dispatch()

    def failed(self, replica: Replica | None = None, dead_instance: str | None = None) -> None:
        """Fail the oldest batch of `replica`."""
        replica, batch, _, at = self._oldest(replica)
        error = ReplicaFailed("told to")
        self.replica_failed(replica, error, at, self.now)
        self.put_back_failed(batch, error, dead_instance, self.now)
        self.ended(replica, batch, self.now)
        self.dispatch()
