"""Canaries: inputs with known vectors, encoded repeatedly while the worker serves.

An engine can start to return wrong vectors, for example after a memory or kernel fault, and only a comparison
detects that. Canaries take the path of clients' items.
"""

import asyncio
import itertools
import logging
import time
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from triptych.workers.encoding import Service
from triptych.workers.item_error import ItemError
from triptych.workers.shared.contract import EncodeRequest
from triptych.workers.worker_metrics import WorkerMetrics

logger = logging.getLogger(__name__)

# After a canary that takes t seconds, rest for 100 t: canaries cost an idle engine 1 % of its time.
REST = 100
# The shortest rest, also while items fail one after another.
SHORTEST_REST_SECONDS = 10.0
# Smallest norm to divide by: a score may be near zero.
_SMALLEST_NORM = 0.1


class Drift(Exception):
    """A canary failed, or its vector differs from the one learned at start."""


class Canaries:
    """Learns the canaries' vectors once, then compares. `failure` is set once vectors are wrong.

    `rest` and `shortest_rest_seconds` set the pause after each canary.
    """

    def __init__(
        self,
        service: Service,
        metrics: WorkerMetrics,
        rest: float = REST,
        shortest_rest_seconds: float = SHORTEST_REST_SECONDS,
    ) -> None:
        self.failure: str | None = None
        self._service, self._metrics = service, metrics
        self._rest, self._shortest_rest = rest, shortest_rest_seconds
        self._known: dict[str, NDArray[np.float32]] = {}
        self._right_at: dict[str, float] = {}
        self._rests: dict[str, float] = {}
        self._doubt = asyncio.Event()

    def doubt(self) -> None:
        """Check soon, because an item failed inside the engine."""
        self._doubt.set()

    async def learn(self) -> None:
        """Encode each canary alone and then all at once, and keep the vectors. Raises `Drift`."""
        canaries = self._service.canaries
        for name, request in canaries.items():
            started = time.monotonic()
            self._known[name] = await self._encode(request)
            self._rests[name] = max(self._shortest_rest, self._rest * (time.monotonic() - started))
        vectors = await asyncio.gather(*map(self._encode, canaries.values()))
        for name, vector in zip(canaries, vectors, strict=True):
            self._compare(name, vector)

    async def watch(self) -> None:
        """Encode one canary after another until one fails or drifts."""
        for name, request in itertools.cycle(self._service.canaries.items()):
            try:
                self._compare(name, await self._encode(request))
            except Exception as error:
                if self._service.engine.dead:
                    return
                self._metrics.canary_failures.inc()
                self.failure = f"the canary {name!r} failed: {type(error).__name__}: {error}"
                seconds = time.monotonic() - self._right_at[name]
                logger.error("out of service: %s; it was right %.0f s before", self.failure, seconds)
                return
            await asyncio.sleep(self._shortest_rest)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._rests[name] - self._shortest_rest):
                    await self._doubt.wait()
            self._doubt.clear()

    async def _encode(self, request: EncodeRequest) -> NDArray[np.float32]:
        [job] = await self._service.jobs(request)
        try:
            if isinstance(job, ItemError):
                raise job
            return np.frombuffer((await job()).data, np.float32)
        except ItemError as error:
            raise Drift(f"{error.code}: {error}") from error

    def _compare(self, name: str, vector: NDArray[np.float32]) -> None:
        known = self._known[name]
        if vector.shape != known.shape:
            raise Drift(f"{len(vector)} values instead of {len(known)}")
        norm = max(float(np.linalg.norm(known)), _SMALLEST_NORM)
        drift = float(np.linalg.norm(vector - known)) / norm
        self._metrics.canary_drift.labels(name).set(drift)
        # `not <=` also catches NaN.
        if not drift <= self._service.tolerance:
            raise Drift(f"the vector moved by {drift:.4f} of its norm, rounding by {self._service.tolerance}")
        self._right_at[name] = time.monotonic()
