"""All replicas of one pool together: what they can take, what they serve, and which are slow (pure)."""

import logging
import math

from triptych.router.errors import UNAVAILABLE_SECONDS, SpaceMismatch
from triptych.router.items import Item
from triptych.router.pool.replica import UP, Replica, State

log = logging.getLogger(__name__)


class Replicas(tuple[Replica, ...]):
    """The replicas of one pool, in any state. Times are arguments."""

    __slots__ = ()

    @property
    def up(self) -> bool:
        """Whether any replica is up, even with an open breaker: admitted work waits for it."""
        return any(replica.state in UP for replica in self)

    @property
    def spaces(self) -> list[str]:
        """The vector spaces that are served: one, or two during an upgrade."""
        return sorted({replica.space for replica in self if replica.state in UP and replica.info})

    @property
    def lanes(self) -> int:
        """The number of batches that they may have in flight."""
        return sum(replica.lanes for replica in self)

    @property
    def tokens_in_flight(self) -> int:
        """Tokens, estimated, of the batches in flight."""
        # Without `sum`, whose generator takes longer than the loop.
        tokens = 0
        for replica in self:
            tokens += replica.tokens_in_flight
        return tokens

    def mismatch(self, item: Item) -> SpaceMismatch | None:
        """The error for an item whose client accepts no vector space that is served; None if it does."""
        required = item.job.required_of(item.pool)
        served = [item.space_of(space) for space in self.spaces]
        if not required or not served or not required.isdisjoint(served):
            return None
        return SpaceMismatch(
            f"the pool {item.pool} serves the vector space {' and '.join(served)}; "
            "x-require-vector-space names another"
        )

    def usable(self, now: float) -> bool:
        """Whether any replica takes work, or soon will."""
        # Without `any`, whose generator was 4 % of a request's time.
        for replica in self:  # noqa: SIM110
            if replica.usable(now):
                return True
        return False

    def retry_after(self, now: float) -> int:
        """Seconds after which a refused request is worth sending again: until a breaker lets a batch try."""
        trials = [replica.breaker.open_until - now for replica in self if replica.state is State.READY]
        return max(1, math.ceil(min(trials, default=UNAVAILABLE_SECONDS)))

    def compare_pace(self, replica: Replica, now: float) -> None:
        """Compare the pace of `replica` with those that could have its work; alone it is not slow."""
        others = [
            other.pace
            for other in self
            if other is not replica and other.state is State.READY and other.usable(now)
        ]
        if replica.pace.compare(others):
            text = "slow: it gets one batch at a time" if replica.pace.slow else "no longer slow"
            log.warning("replica %s of pool %s is %s", replica.address, replica.pool, text)
