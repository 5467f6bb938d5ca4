"""The number of replicas over time: the deployment's own rule with Ray Serve's own delays."""

import math
from typing import Any

from ray.serve.autoscaling_policy import _apply_delay_logic
from ray.serve.config import AutoscalingConfig

from triptych.deploy.ray.book import LEARNING_SECONDS, Book, RouterReport
from triptych.deploy.ray.config import Autoscaling
from triptych.deploy.ray.policies import ASK_SECONDS
from triptych.deploy.ray.pressure import FromNone, replicas_for
from triptych.loadtests.simulate.simulated_router import POOL

# Serve decides ten times a second, but the policy reads the pressure less often.
DECISION_SECONDS = ASK_SECONDS


class Autoscaler:
    """Collects routers' reports. Ask it for the target every `DECISION_SECONDS`."""

    def __init__(self, settings: Autoscaling) -> None:
        self._settings = settings
        self._from_none = FromNone()
        # The book has been there long enough to know all routers.
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
        """Note a router's report."""
        self._book.report(report, now)

    def target(self, target: int, running: int, now: float) -> int:
        """The next target, from the current `target` and the number of replicas that serve."""
        its = self._settings
        pressure = self._book.pressure(POOL, now)
        wanted = target
        if pressure is not None:
            asked = replicas_for(pressure.demand(its.backlog_seconds), its.tokens_per_second, its.utilization)
            wanted = math.ceil(self._from_none.decide(asked, target, running, its.up_seconds, now))
        wanted = min(max(wanted, its.min), its.max)
        if running == 0 and wanted > 0:
            # Serve has no delay when no replica runs.
            return wanted
        decided, self._state = _apply_delay_logic(wanted, target, self._delays, self._state, now)
        return int(decided)
