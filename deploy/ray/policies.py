"""Autoscaling policies of Ray Serve. They run in its controller.

The controller's loop must not wait, so a policy starts one call to the directory and checks at each of its
own calls whether the result is there.
"""

import time
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.serve.config import AutoscalingContext

from triptych.deploy.ray.directory import find_directory
from triptych.deploy.ray.pressure import FromZero, Pressure
from triptych.deploy.ray.ray_private import labels_match
from triptych.workers.shared.contract import PoolName

ASK_SECONDS = 1.0
# The call is repeated when there is no result for this long.
PATIENCE_SECONDS = 10.0

Decision = tuple[float, dict[str, Any]]


@dataclass
class PressurePolicy:
    """The replicas of one pool follow its load; the number stays while the load is unknown."""

    name: str
    pool: PoolName
    tokens_per_second: float
    utilization: float
    backlog_seconds: float

    _from_zero: FromZero = field(default_factory=FromZero)
    _pressure: Pressure | None = None
    _asked_at: float = float("-inf")
    _answer: Any = None

    def __call__(self, context: AutoscalingContext) -> Decision:
        now = time.monotonic()
        self._look(now)
        if self._pressure is None:
            return context.target_num_replicas, {}
        capacity = self.tokens_per_second * self.utilization
        wanted = self._pressure.demand(self.backlog_seconds) / capacity
        target, running = context.target_num_replicas, context.current_num_replicas
        config: Any = context.config
        return self._from_zero.decide(wanted, target, running, config.upscale_delay_s, now), {}

    def _look(self, now: float) -> None:
        if self._answer is not None:
            if self._answer.done():
                self._pressure = None if self._answer.exception() else self._answer.result()
                self._answer = None
            elif now - self._asked_at > PATIENCE_SECONDS:
                self._answer = self._pressure = None
        if self._answer is None and now - self._asked_at >= ASK_SECONDS:
            self._asked_at = now
            book = find_directory(self.name)
            self._answer = book.ask.remote("pressure", self.pool).future() if book else None


@dataclass
class NodesPolicy:
    """One router for each living node whose labels meet the selector."""

    labels: dict[str, str]
    _looked_at: float = float("-inf")
    _nodes: int = 0

    def __call__(self, context: AutoscalingContext) -> Decision:
        now = time.monotonic()
        if now - self._looked_at >= ASK_SECONDS:
            self._looked_at = now
            self._nodes = sum(
                node["Alive"] and labels_match(node["Labels"], self.labels)
                for node in ray.nodes()  # type: ignore[no-untyped-call]
            )
        return max(1, self._nodes), {}
