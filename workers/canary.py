"""Canaries: inputs whose vectors are known, encoded again and again while the worker serves.

An engine can go on answering with wrong vectors, for example after a fault in memory or in a kernel. Nothing
but a comparison shows it. The canaries take the same way as any item, so what they pass is what clients get.
"""

import asyncio
import itertools
import logging
import time
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from workers.encoding import Service
from workers.metrics import WorkerMetrics
from workers.shared.contract import EncodeRequest, Failure, Vector

logger = logging.getLogger(__name__)

# A canary that takes an idle engine t seconds is followed by 100 t without one: a hundredth of its time.
REST = 100
# No less, also when items fail one after another.
SHORTEST_REST_SECONDS = 10.0
# Smallest length to divide by: a score may be near zero.
_SHORTEST_LENGTH = 0.1


class Drift(Exception):
    """A canary's vector differs from the one learned at start."""


class Canaries:
    """Learns the canaries' vectors once, then compares; `failure` says why the worker is out of service."""

    def __init__(self, service: Service, metrics: WorkerMetrics) -> None:
        self.failure: str | None = None
        self._service = service
        self._metrics = metrics
        self._known: dict[str, NDArray[np.float32]] = {}
        self._rest: dict[str, float] = {}
        self._doubt = asyncio.Event()

    def doubt(self) -> None:
        """An item failed inside the engine: look now."""
        self._doubt.set()

    async def learn(self) -> None:
        """Encode each canary twice, alone and then all at once, and keep its vector. Raises what is wrong."""
        canaries = self._service.canaries
        for name, request in canaries.items():
            started = time.monotonic()
            self._known[name] = await self._encode(request)
            self._rest[name] = max(SHORTEST_REST_SECONDS, REST * (time.monotonic() - started))
        vectors = await asyncio.gather(*map(self._encode, canaries.values()))
        for name, vector in zip(canaries, vectors, strict=True):
            self._compare(name, vector)

    async def watch(self) -> None:
        """Encode one canary after another, until one fails or drifts."""
        for name, request in itertools.cycle(self._service.canaries.items()):
            try:
                self._compare(name, await self._encode(request))
            except Exception as error:
                if self._service.dead:
                    return
                self._metrics.canary_failures.inc()
                self.failure = f"the canary {name!r} failed: {type(error).__name__}: {error}"
                logger.error("out of service: %s", self.failure)
                return
            await asyncio.sleep(SHORTEST_REST_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._rest[name] - SHORTEST_REST_SECONDS):
                    await self._doubt.wait()
            self._doubt.clear()

    async def _encode(self, request: EncodeRequest) -> NDArray[np.float32]:
        [job] = await self._service.jobs(request)
        frame = job if isinstance(job, Failure) else await job()
        if not isinstance(frame, Vector):
            raise Drift(f"{frame.code}: {frame.message}")
        return np.frombuffer(frame.data, np.float32)

    def _compare(self, name: str, vector: NDArray[np.float32]) -> None:
        known = self._known[name]
        if vector.shape != known.shape:
            raise Drift(f"{len(vector)} values where there were {len(known)}")
        length = max(float(np.linalg.norm(known)), _SHORTEST_LENGTH)
        drift = float(np.linalg.norm(vector - known)) / length
        self._metrics.canary_drift.labels(name).set(drift)
        # Not `>`: a NaN is no number to compare with.
        if not drift <= self._service.tolerance:
            raise Drift(
                f"its vector has moved by {drift:.4f} of its length; {self._service.tolerance} is rounding"
            )
