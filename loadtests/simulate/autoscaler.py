"""How many replicas there shall be: the deployment's own book and rule, with Ray Serve's own delays."""

import math
from typing import Any

from ray.serve.autoscaling_policy import _apply_delay_logic
from ray.serve.config import AutoscalingConfig

from deploy.ray.book import LEARNING_SECONDS, Book, RouterReport
from deploy.ray.config import Autoscaling
from deploy.ray.policies import ASK_SECONDS
from deploy.ray.pressure import AVERAGED_SECONDS, FromNone, Pressure, replicas_for
from loadtests.simulate.router import POOL

# Serve decides ten times a second, but the policy asks for the pressure only so often.
DECISION_SECONDS = ASK_SECONDS


class Autoscaler:
    """Hears what routers report, and is asked every DECISION_SECONDS.

    With `tokens_held` it goes by another rule, to compare with: as many replicas as have so many tokens each,
    waiting and running.
    """

    def __init__(self, settings: Autoscaling, tokens_held: float | None = None) -> None:
        self._settings = settings
        self._tokens_held = tokens_held
        self._mean_held = 0.0
        self._from_none = FromNone()
        # It has been there for long, and would know whoever was there before.
        self._book = Book(-LEARNING_SECONDS)
        self._delays = AutoscalingConfig(
            min_replicas=settings.min,
            max_replicas=settings.max,
            upscale_delay_s=settings.up_seconds,
            downscale_delay_s=settings.down_seconds,
            downscale_to_zero_delay_s=settings.to_zero_seconds,
        )
        self._state: dict[str, Any] = {}

    def report(self, report: RouterReport, now: float) -> None:
        """What a router says."""
        self._book.report(report, now)

    def target(self, target: int, running: int, now: float) -> int:
        """How many there shall be, where so far it was `target`, of which `running` serve."""
        pressure = self._book.pressure(POOL, now)
        wanted = target
        if pressure is not None:
            asked = self._replicas_for(pressure)
            wanted = math.ceil(self._from_none.decide(asked, target, running, self._settings.up_seconds, now))
        wanted = min(max(wanted, self._settings.min), self._settings.max)
        if running == 0 and wanted > 0:
            # As Serve does: from none there is no delay.
            return wanted
        decided, self._state = _apply_delay_logic(wanted, target, self._delays, self._state, now)
        return int(decided)

    def _replicas_for(self, pressure: Pressure) -> float:
        its = self._settings
        if self._tokens_held is None:
            return replicas_for(pressure.demand(its.backlog_seconds), its.tokens_per_second, its.utilization)
        held = pressure.waiting_tokens + pressure.running_tokens
        newest = 1 - math.exp(-DECISION_SECONDS / AVERAGED_SECONDS)
        self._mean_held += newest * (held - self._mean_held)
        return self._mean_held / self._tokens_held
