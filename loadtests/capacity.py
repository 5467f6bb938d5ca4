"""Search for the highest rate that meets an objective.

It does no I/O: it yields segments and is sent their results.
"""

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field

from loadtests.results import Capacity, Measured, Probe, Segment
from loadtests.shapes import Shape
from loadtests.verdict import Few, Verdict

Judge = Callable[[Sequence[Measured]], tuple[Verdict, str]]
TooFew = Callable[[Sequence[Measured]], Few | None]
Bottleneck = Callable[[Sequence[Measured]], str | None]
Asking = Generator[Segment, Measured, Probe]
Bracket = tuple[float, float | None]
"""A rate that holds (0: none) and the lowest rate above it that does not (None: none)."""

GROWTH = 2.0
# Tries of a rate that stays unclear.
PATIENCE = 3
# A try with too few replies is extended, up to this multiple of `seconds`; `MARGIN` allows for chance.
LONGEST = 20.0
MARGIN = 1.1
# The share of confirmations that must hold; otherwise a lower rate is confirmed, `LOWERINGS` times at most.
CONFIRMATIONS = 3
ENOUGH = 2 / 3
LOWERINGS = 4
SECOND_LOOKS = 2
SETTLE_SHARE = 0.2
RECOVERY_SHARE = 0.1
RECOVERY_SECONDS = 3.0
RECOVERIES = 10
# Rates below this share of `start` are not tried.
LEAST_SHARE = 1 / 64


def find_capacity(
    judge: Judge,
    too_few: TooFew,
    bottleneck: Bottleneck,
    *,
    objective: str,
    start: float,
    most: float,
    precision: float,
    seconds: float,
) -> Shape:
    """The search, as a shape that returns a `Capacity`; rates in requests per second.

    `judge` gives the verdict on all tries of a rate, `too_few` the replies that a verdict lacks, and
    `bottleneck` the reason why the harness may be the limit. A try lasts `seconds`, or longer if its verdict
    needs more replies, after a fifth of `seconds` to settle. The result lies within `precision` (a share) of
    a rate that fails, or is `most`.

    Noise misleads in two ways. A rate that fails by chance hides all rates above, so the lowest rate that
    failed is tried again. A rate that holds by chance fails its confirmations, and the search goes lower.
    """
    return _Search(judge, too_few, bottleneck, objective, start, most, precision, seconds).shape()


@dataclass
class _Search:
    judge: Judge
    too_few: TooFew
    bottleneck: Bottleneck
    objective: str
    start: float
    most: float
    precision: float
    seconds: float
    _probes: list[Probe] = field(default_factory=list, init=False)
    _segments: int = field(default=0, init=False)
    # Requests that a verdict has needed, if more than came in `seconds`.
    _requests: float = field(default=0.0, init=False)
    # Why the search is over early: the harness, too few replies, or a dead server.
    _harness: str | None = field(default=None, init=False)
    _undecided: bool = field(default=False, init=False)
    _lost: bool = field(default=False, init=False)

    def shape(self) -> Shape:
        """Double the rate until it fails, bisect, then confirm."""
        good, bad = yield from self._narrowed(*(yield from self._bracket()))
        undecided = self._undecided
        if undecided:
            # An unclear rate has not failed.
            bad = self._least_above(good, "fails")
        confirmed, tries = 0, 0
        for lowering in range(LOWERINGS):
            if not good or self._lost:
                break
            confirmed, tries = yield from self._confirm(good)
            if self._lost or confirmed >= ENOUGH * tries:
                break
            bad, good = good, good / (1 + self.precision) ** 2**lowering
        else:
            held = (probe.rate for probe in self._probes if probe.verdict == "holds")
            good = max((rate for rate in held if bad is None or rate < bad), default=0.0)
            confirmed, tries = 0, 0
        return Capacity(
            objective=self.objective,
            rate=good,
            fails_at=bad,
            confirmed=confirmed,
            tries=tries,
            probes=self._probes,
            limited_by=(
                "harness" if self._harness else "replies" if undecided else "server" if bad else "range"
            ),
        )

    @property
    def _over(self) -> bool:
        return self._lost or self._undecided or self._harness is not None

    def _bracket(self) -> Generator[Segment, Measured, Bracket]:
        rate = self.start
        if (yield from self._holds(rate)):
            return (yield from self._climbed(rate))
        while not self._over and rate > self.start * LEAST_SHARE:
            bad, rate = rate, rate / GROWTH
            if (yield from self._holds(rate)):
                return rate, bad
        return 0.0, rate

    def _climbed(self, good: float) -> Generator[Segment, Measured, Bracket]:
        while good < self.most:
            rate = min(good * GROWTH, self.most)
            if not (yield from self._holds(rate)):
                return good, rate
            good = rate
        return good, None

    def _narrowed(self, good: float, bad: float | None) -> Generator[Segment, Measured, Bracket]:
        for _ in range(SECOND_LOOKS):
            good, bad = yield from self._bisected(good, bad)
            if not good or bad is None or self._over or not (yield from self._holds(bad, patience=1)):
                return good, bad
            good, bad = bad, self._least_above(bad, "fails", "unclear")
            if bad is None:
                good, bad = yield from self._climbed(good)
        return (yield from self._bisected(good, bad))

    def _bisected(self, good: float, bad: float | None) -> Generator[Segment, Measured, Bracket]:
        while good and bad and bad / good > 1 + self.precision and not self._over:
            rate = (good * bad) ** 0.5
            good, bad = (rate, bad) if (yield from self._holds(rate)) else (good, rate)
        return good, bad

    def _least_above(self, rate: float, *verdicts: Verdict) -> float | None:
        above = (probe.rate for probe in self._probes if probe.rate > rate and probe.verdict in verdicts)
        return min(above, default=None)

    def _holds(self, rate: float, patience: int = PATIENCE) -> Generator[Segment, Measured, bool]:
        probe = yield from self._try(f"probe {rate:.4g}/s", rate, patience, self.seconds)
        if probe.verdict != "holds":
            yield from self._recover(probe)
        return probe.verdict == "holds"

    def _confirm(self, rate: float) -> Generator[Segment, Measured, tuple[int, int]]:
        held = 0
        has_held = any(probe.rate == rate and probe.verdict == "holds" for probe in self._probes)
        for number in range(1, CONFIRMATIONS + 1):
            name = f"confirm {number} of {CONFIRMATIONS} at {rate:.4g}/s"
            probe = yield from self._try(name, rate, 1, self._length(rate))
            # A rate that has held with confidence is not given up for an unclear try.
            has_held = has_held or probe.verdict == "holds"
            held += probe.verdict == "holds" or (probe.verdict == "unclear" and has_held)
            if probe.verdict == "fails":
                yield from self._recover(probe)
            if self._lost:
                return held, number
        return held, CONFIRMATIONS

    def _try(self, name: str, rate: float, patience: int, seconds: float, *, last: bool = False) -> Asking:
        """Try a rate until the verdict is clear or patience ends. If the harness was in the way, try once
        more: it may have been late by chance (`last`: this is that try)."""
        measured: list[Measured] = []
        first, tries, spent = self._segments, 0, 0.0
        while True:
            measured.append((yield from self._put_on(name, rate, seconds)))
            spent += seconds
            verdict, why = self.judge(measured)
            few = self.too_few(measured) if verdict == "unclear" else None
            if few:
                name = f"{few.needed - few.replies} more replies at {rate:.4g}/s"
                seconds = self._more(few, spent)
                if spent + seconds > LONGEST * self.seconds:
                    break
                self._requests = max(self._requests, rate * (spent + seconds))
                continue
            tries += 1
            if verdict != "unclear" or tries == patience:
                break
            name, seconds = f"again {rate:.4g}/s", self._length(rate)
        reason = self.bottleneck(measured) if verdict != "holds" else None
        if few and not reason:
            self._undecided, why = True, self._advice(few, spent + seconds)
        segments = list(range(first, self._segments))
        probe = Probe(rate=rate, verdict=verdict, segments=segments, why=reason or why)
        self._probes.append(probe)
        if reason and not last:
            yield from self._recover(probe)
            if not self._lost:
                name = f"again {rate:.4g}/s"
                return (yield from self._try(name, rate, patience, self._length(rate), last=True))
        self._harness = reason or self._harness
        return probe

    def _put_on(self, name: str, rate: float, seconds: float) -> Generator[Segment, Measured, Measured]:
        settle = self.seconds * SETTLE_SHARE
        segment = Segment(name=name, seconds=settle + seconds, settle=settle, rate=(rate, rate))
        return (yield from self._run(segment))

    def _length(self, rate: float) -> float:
        """Seconds of a try that, as far as is known, bring enough replies for a verdict."""
        return min(max(self.seconds, math.ceil(self._requests / rate)), LONGEST * self.seconds)

    def _more(self, few: Few, spent: float) -> float:
        """Seconds until enough replies are there; as long again if none came."""
        wanted = MARGIN * (few.needed - few.replies) / few.replies * spent if few.replies else spent
        return max(self.seconds, math.ceil(wanted))

    def _advice(self, few: Few, wanted: float) -> str:
        seconds = math.ceil(MARGIN * wanted / LONGEST)
        failed = any(probe.verdict == "fails" for probe in self._probes)
        other = "" if failed else " or a higher --start"
        return f"too few replies ({few.replies} of {few.needed}): give --seconds {seconds}{other}"

    def _recover(self, after: Probe) -> Generator[Segment, Measured, None]:
        """Put on little load until the backlog of a failed try is gone. A server that answers nothing is
        lost."""
        rate = max(min(probe.rate for probe in self._probes) * RECOVERY_SHARE, 1 / RECOVERY_SECONDS)
        answered = failed = 0
        for _ in range(RECOVERIES):
            segment = Segment(name="recover", seconds=RECOVERY_SECONDS, rate=(rate, rate))
            measured = yield from self._run(segment)
            rows = list(measured.intervals.values())
            every = [interval for row in rows for interval in row]
            answered += sum(interval.done for interval in every)
            failed += sum(sum(interval.failures.values()) for interval in every)
            if not any(interval.sent for interval in every):
                # Nothing was due, by chance.
                continue
            # Slow requests are always in flight, with no backlog.
            in_flight = sum(row[-1].in_flight for row in rows)
            rested = in_flight <= max(2.0, rate) or self.judge([measured])[0] != "fails"
            if rested and not any(row[-1].failures for row in rows):
                return
        if failed and not answered:
            self._lost = True
            after.why = f"{after.why}; after it the server did not come back".removeprefix("; ")

    def _run(self, segment: Segment) -> Generator[Segment, Measured, Measured]:
        measured = yield segment
        self._segments += 1
        return measured
