"""How many replicas there are to be: Ray Serve's autoscaling policies, which run inside its controller.

The controller's loop must not wait. So each policy leaves one question on its way and looks, each time that
it is called, whether the answer has come.
"""

import time
from typing import Any

import ray
from ray.serve.config import AutoscalingContext

from deploy.ray.directory import find_directory
from deploy.ray.pressure import FromNone, Pressure, replicas_for
from deploy.ray.room import matches
from workers.shared.contract import PoolName

ASK_SECONDS = 1.0
# A question without an answer for this long is asked again.
PATIENCE_SECONDS = 10.0

Decision = tuple[float, dict[str, Any]]


class PressurePolicy:
    """Replicas of one pool by what it has to do; as many as there are for as long as nobody says what."""

    def __init__(
        self,
        name: str,
        pool: PoolName,
        tokens_per_second: float,
        utilization: float,
        backlog_seconds: float,
    ) -> None:
        self._name, self._pool = name, pool
        self._capacity, self._utilization = tokens_per_second, utilization
        self._backlog_seconds = backlog_seconds
        self._from_none = FromNone()
        self._pressure: Pressure | None = None
        self._asked_at = float("-inf")
        self._answer: Any = None

    def __call__(self, context: AutoscalingContext) -> Decision:
        now = time.monotonic()
        self._look(now)
        if self._pressure is None:
            return context.target_num_replicas, {}
        demand = self._pressure.demand(self._backlog_seconds)
        wanted = replicas_for(demand, self._capacity, self._utilization)
        target, running = context.target_num_replicas, context.current_num_replicas
        config: Any = context.config
        return self._from_none.decide(wanted, target, running, config.upscale_delay_s, now), {}

    def _look(self, now: float) -> None:
        if self._answer is not None:
            if self._answer.done():
                self._pressure = None if self._answer.exception() else self._answer.result()
                self._answer = None
            elif now - self._asked_at > PATIENCE_SECONDS:
                self._answer = self._pressure = None
        if self._answer is None and now - self._asked_at >= ASK_SECONDS:
            self._asked_at = now
            book = find_directory(self._name)
            self._answer = book.pressure.remote(self._pool).future() if book else None


class NodesPolicy:
    """One router for each node that lives and whose labels Ray takes: `a`, `!a`, `in(a,b)` or `!in(a,b)`."""

    def __init__(self, labels: dict[str, str]) -> None:
        self._labels = labels
        self._looked_at = float("-inf")
        self._nodes = 0

    def __call__(self, context: AutoscalingContext) -> Decision:
        now = time.monotonic()
        if now - self._looked_at >= ASK_SECONDS:
            self._looked_at = now
            self._nodes = sum(
                node["Alive"] and matches(node["Labels"], self._labels)
                for node in ray.nodes()  # type: ignore[no-untyped-call]
            )
        return max(1, self._nodes), {}
