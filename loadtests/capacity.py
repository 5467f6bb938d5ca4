"""Search for the highest rate that meets an objective (pure)."""

import contextlib
import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from triptych.loadtests.results import Capacity, Limit, Measured, Probe, Segment, Verdict
from triptych.loadtests.slo import Ruling

Judge = Callable[[Sequence[Measured]], Ruling]
Bottleneck = Callable[[Sequence[Measured]], str | None]
Result = TypeVar("Result")
Steps = Generator[Sequence[Segment], Sequence[Measured], Result]
Shape = Steps[Capacity | None]
"""A load over time: yields segments to go through without a gap, is sent their results, and ends with the
result of a search."""

GROWTH = 2.0
# Tries of a rate that stays unclear.
PATIENCE = 3
# A try lasts until it has enough replies, with a `MARGIN` for chance, at most this multiple of `seconds`.
LONGEST, MARGIN = 20.0, 1.25
CONFIRMATIONS, ENOUGH = 3, 2
# A rate that fails its confirmations counts as one that fails, this many times at most.
LOWERINGS = 4
SECOND_LOOKS = 2
SETTLE_SHARE = 0.2
RECOVERY_SHARE = 0.1
RECOVERY_SECONDS = 3.0
RECOVERIES = 10
# Rates below this share of `start` are not tried.
LEAST_SHARE = 1 / 64


class _ServerDied(Exception):
    """The server no longer answers."""


@dataclass(kw_only=True)
class Search:
    """The search; rates in requests per second.

    `judge` rules on all tries of a rate, and `bottleneck` gives the reason why the harness may be the limit.
    A try lasts `seconds`, or until about `requests` were sent, after a fifth of `seconds` to settle. The
    result lies within `precision` (a share) of a rate that fails, or is `most`.

    Noise misleads in two ways. A rate that fails by chance hides all rates above, so the lowest rate that
    failed is tried again. A rate that holds by chance fails its confirmations, and the search goes lower. A
    confirmation holds if its figures meet the objective, however close.
    """

    judge: Judge
    bottleneck: Bottleneck
    objective: str
    start: float
    most: float
    precision: float
    seconds: float
    requests: float
    _verdicts: dict[float, Verdict] = field(default_factory=dict, init=False)
    _probes: list[Probe] = field(default_factory=list, init=False)
    _segments: int = field(default=0, init=False)
    _confirmed: int = field(default=0, init=False)
    _tries: int = field(default=0, init=False)
    # Why the search is over early.
    _over: Limit | None = field(default=None, init=False)

    def shape(self) -> Shape:
        """Double the rate until it fails, bisect, then confirm; returns a `Capacity`."""
        with contextlib.suppress(_ServerDied):
            for _ in range(LOWERINGS):
                yield from self._narrow()
                good, _ = self._bracket()
                if not good:
                    break
                while self._tries < CONFIRMATIONS:
                    self._tries += 1
                    name = f"confirm {self._tries} of {CONFIRMATIONS} at {good:.4g}/s"
                    verdict = yield from self._try(name, good, patience=1, confirms=True)
                    self._confirmed += verdict == "holds"
                if self._confirmed >= ENOUGH:
                    break
                self._verdicts[good] = "fails"
                self._confirmed = self._tries = 0
        good, bad = self._bracket()
        return Capacity(
            objective=self.objective,
            rate=good,
            fails_at=bad,
            confirmed=self._confirmed,
            tries=self._tries,
            probes=self._probes,
            limited_by=self._over or ("server" if bad else "range"),
        )

    def too_few(self, rate: float) -> str | None:
        """Why a try of `rate` would take too long; None if it would not."""
        seconds = self._length(rate)
        if seconds <= LONGEST * self.seconds:
            return None
        return f"too few replies: give --seconds {math.ceil(seconds / LONGEST)}"

    def _bracket(self) -> tuple[float, float | None]:
        """The highest rate that holds below all that do not, or 0, and the lowest that does not."""
        bad = min((rate for rate, verdict in self._verdicts.items() if verdict != "holds"), default=None)
        held = (rate for rate in self._verdicts if bad is None or rate < bad)
        return max(held, default=0.0), bad

    def _next(self, good: float, bad: float | None) -> float | None:
        """The rate to try next; None if the capacity is known well enough."""
        if bad is None:
            rate = min(good * GROWTH, self.most) if good else self.start
            return rate if rate > good else None
        if not good:
            return bad / GROWTH if bad > self.start * LEAST_SHARE else None
        return math.sqrt(good * bad) if bad / good > 1 + self.precision else None

    def _narrow(self) -> Steps[None]:
        """Try rates until the capacity is known well enough, then look again at the lowest that failed."""
        looks = SECOND_LOOKS
        while not self._over:
            good, bad = self._bracket()
            if (rate := self._next(good, bad)) is not None:
                yield from self._try(f"probe {rate:.4g}/s", rate)
            elif looks and good and bad is not None:
                verdict = yield from self._try(f"probe {bad:.4g}/s", bad, patience=1)
                looks = looks - 1 if verdict == "holds" else 0
            else:
                break

    def _try(
        self, name: str, rate: float, *, patience: int = PATIENCE, confirms: bool = False
    ) -> Steps[Verdict]:
        """Try a rate until the verdict is clear or patience ends.

        If the harness was in the way, try once more: it may have been late by chance.
        """
        if why := self.too_few(rate):
            self._over = "replies"
            other = "" if "fails" in self._verdicts.values() else " or a higher --start"
            self._probes.append(Probe(rate=rate, verdict="unclear", segments=[], why=why + other))
            return "unclear"
        settle = self.seconds * SETTLE_SHARE
        for limit in (None, "harness"):
            pooled: list[Measured] = []
            first = self._segments
            for _ in range(patience):
                segment = Segment(name=name, seconds=settle + self._length(rate), settle=settle, rate=rate)
                pooled.append((yield from self._run(segment)))
                verdict, said, met = self.judge(pooled)
                name = f"again {rate:.4g}/s"
                if verdict != "unclear":
                    break
            if confirms and verdict == "unclear":
                verdict = "holds" if met else "fails"
            reason = self.bottleneck(pooled) if verdict != "holds" else None
            segments = list(range(first, self._segments))
            probe = Probe(rate=rate, verdict=verdict, segments=segments, why=reason or said)
            self._probes.append(probe)
            if not confirms:
                self._verdicts[rate] = verdict
            if verdict != "holds":
                yield from self._recover(probe)
            if not reason:
                break
            self._over = limit
        return verdict

    def _length(self, rate: float) -> float:
        """Seconds of a try, without settling."""
        return max(self.seconds, math.ceil(MARGIN * self.requests / rate))

    def _recover(self, after: Probe) -> Steps[None]:
        """Put on little load until the backlog of a failed try is gone. Raises `_ServerDied`."""
        rate = max(min(probe.rate for probe in self._probes) * RECOVERY_SHARE, 1 / RECOVERY_SECONDS)
        answered = failed = 0
        for _ in range(RECOVERIES):
            measured = yield from self._run(Segment(name="recover", seconds=RECOVERY_SECONDS, rate=rate))
            rows = list(measured.intervals.values())
            every = [interval for row in rows for interval in row]
            answered += sum(interval.done for interval in every)
            failed += sum(interval.failed for interval in every)
            if not any(interval.sent for interval in every):
                # Nothing was due, by chance.
                continue
            # Slow requests are always in flight, with no backlog.
            in_flight = sum(row[-1].in_flight for row in rows)
            rested = in_flight <= max(2.0, rate) or self.judge([measured]).verdict != "fails"
            if rested and not any(row[-1].failures for row in rows):
                return
        if failed and not answered:
            after.why = f"{after.why}; after it the server did not come back".removeprefix("; ")
            raise _ServerDied

    def _run(self, segment: Segment) -> Steps[Measured]:
        [measured] = yield [segment]
        self._segments += 1
        return measured
