"""The search for the highest rate at which an objective holds (pure: it is told how each try went)."""

from collections.abc import Callable, Generator, Sequence

from loadtests.results import Capacity, Limit, Measured, Probe, Segment
from loadtests.shapes import Shape
from loadtests.slo import Verdict

Judge = Callable[[Sequence[Measured]], tuple[Verdict, str]]
Bottleneck = Callable[[Sequence[Measured]], str | None]
Asking = Generator[Segment, Measured, Probe]
Bracket = tuple[float, float | None]
"""A rate that holds (0: none) and the lowest above it that does not (None: none)."""

GROWTH = 2.0
# A rate that is neither clearly good nor clearly bad is tried so often.
PATIENCE = 3
CONFIRMATIONS = 3
# Of the confirmations that have to hold; below, the search goes on a little lower.
ENOUGH = 2 / 3
LOWERINGS = 4
SECOND_LOOKS = 2
SETTLE_SHARE = 0.2
RECOVERY_SHARE = 0.1
RECOVERY_SECONDS = 3.0
RECOVERIES = 10
LEAST_SHARE = 1 / 64


class Search:
    """One search. `judge` says of what was measured at one rate whether the objective held.

    Tries last `seconds`, and a fifth more before, in which the load settles. The rate found is within
    `precision` of one that fails, or `most`.

    Noise misleads in two ways. A rate that fails by chance, while the server stalls, hides all that lies
    above: the lowest that failed gets a second look, and the search goes on above where it holds then. A rate
    that holds by chance is not confirmed: the search goes lower, by more each time, until one is.
    """

    def __init__(
        self,
        judge: Judge,
        bottleneck: Bottleneck,
        *,
        objective: str,
        start: float,
        most: float,
        precision: float,
        seconds: float,
    ) -> None:
        self._judge, self._bottleneck = judge, bottleneck
        self._objective, self._start, self._most = objective, start, most
        self._precision, self._seconds = precision, seconds
        self._probes: list[Probe] = []
        self._segments = 0
        self._limit: str | None = None
        self._lost = False

    def shape(self) -> Shape:
        """Double until it fails, halve what lies between, then confirm."""
        good, bad = yield from self._bracket()
        good, bad = yield from self._narrowed(good, bad)
        confirmed, tries = 0, 0
        for lowering in range(LOWERINGS):
            if not good or self._lost:
                break
            confirmed, tries = yield from self._confirm(good)
            if self._lost or confirmed >= ENOUGH * tries:
                break
            # What fails is never lower than what is found.
            bad, good = good, good / (1 + self._precision) ** 2**lowering
        else:
            # No rate is good more often than not, but one may have been good once.
            good, confirmed, tries = self._best_below(bad), 0, 0
        limited: Limit = "harness" if self._limit else "server" if bad else "range"
        return Capacity(
            objective=self._objective,
            rate=good,
            fails_at=bad,
            confirmed=confirmed,
            tries=tries,
            probes=self._probes,
            limited_by=limited,
        )

    @property
    def _over(self) -> bool:
        """Whether nothing more can be learnt."""
        return self._lost or self._limit is not None

    def _bracket(self) -> Generator[Segment, Measured, Bracket]:
        rate = self._start
        if (yield from self._holds(rate)):
            return (yield from self._climbed(rate))
        while not self._over and rate > self._start * LEAST_SHARE:
            bad, rate = rate, rate / GROWTH
            if (yield from self._holds(rate)):
                return rate, bad
        return 0.0, rate

    def _climbed(self, good: float) -> Generator[Segment, Measured, Bracket]:
        while good < self._most:
            rate = min(good * GROWTH, self._most)
            if not (yield from self._holds(rate)):
                return good, rate
            good = rate
        return good, None

    def _narrowed(self, good: float, bad: float | None) -> Generator[Segment, Measured, Bracket]:
        for _ in range(SECOND_LOOKS):
            good, bad = yield from self._halved(good, bad)
            if not good or bad is None or self._over or not (yield from self._holds(bad, 1)):
                return good, bad
            good, bad = bad, self._worst_above(bad)
            if bad is None:
                good, bad = yield from self._climbed(good)
        return (yield from self._halved(good, bad))

    def _halved(self, good: float, bad: float | None) -> Generator[Segment, Measured, Bracket]:
        while good and bad and bad / good > 1 + self._precision and not self._over:
            rate = (good * bad) ** 0.5
            good, bad = (rate, bad) if (yield from self._holds(rate)) else (good, rate)
        return good, bad

    def _worst_above(self, rate: float) -> float | None:
        return min(
            (probe.rate for probe in self._probes if probe.rate > rate and probe.verdict != "holds"),
            default=None,
        )

    def _best_below(self, rate: float | None) -> float:
        held = (probe.rate for probe in self._probes if probe.verdict == "holds")
        return max((one for one in held if rate is None or one < rate), default=0.0)

    def _holds(self, rate: float, patience: int = PATIENCE) -> Generator[Segment, Measured, bool]:
        """Try `rate`, again where it is unclear; afterwards the backlog is gone."""
        probe = yield from self._try(f"probe {rate:.4g}/s", rate, patience)
        if probe.verdict != "holds":
            yield from self._recover(probe)
        return probe.verdict == "holds"

    def _confirm(self, rate: float) -> Generator[Segment, Measured, tuple[int, int]]:
        held = 0
        for number in range(CONFIRMATIONS):
            name = f"confirm {number + 1} of {CONFIRMATIONS} at {rate:.4g}/s"
            probe = yield from self._try(name, rate, 1)
            # Unclear once more, after it has held with confidence, is no reason to go lower.
            held += probe.verdict == "holds" or (probe.verdict == "unclear" and self._has_held(rate))
            if probe.verdict == "fails":
                yield from self._recover(probe)
            if self._lost:
                return held, number + 1
        return held, CONFIRMATIONS

    def _has_held(self, rate: float) -> bool:
        return any(probe.rate == rate and probe.verdict == "holds" for probe in self._probes)

    def _try(self, name: str, rate: float, patience: int) -> Asking:
        measured: list[Measured] = []
        verdict: Verdict = "unclear"
        why = ""
        first = self._segments
        for number in range(patience):
            seconds = self._seconds * (1 + SETTLE_SHARE)
            segment = Segment(
                name=name if number == 0 else f"again {rate:.4g}/s",
                seconds=seconds,
                settle=self._seconds * SETTLE_SHARE,
                rate=(rate, rate),
            )
            measured.append((yield from self._run(segment)))
            verdict, why = self._judge(measured)
            if verdict != "unclear":
                break
        if verdict != "holds" and (reason := self._bottleneck(measured)):
            self._limit = why = reason
        probe = Probe(rate=rate, verdict=verdict, segments=list(range(first, self._segments)), why=why)
        self._probes.append(probe)
        return probe

    def _recover(self, after: Probe) -> Generator[Segment, Measured, None]:
        """Put little load on until nothing of what was too much is left.

        Of a server that answers nothing at all by then no more is asked.
        """
        least = min(probe.rate for probe in self._probes)
        rate = max(least * RECOVERY_SHARE, 1 / RECOVERY_SECONDS)
        answered = failed = 0
        for _ in range(RECOVERIES):
            segment = Segment(name="recover", seconds=RECOVERY_SECONDS, rate=(rate, rate))
            measured = yield from self._run(segment)
            its = list(measured.intervals.values())
            answered += sum(interval.done for intervals in its for interval in intervals)
            failed += sum(sum(interval.failures.values()) for intervals in its for interval in intervals)
            last = [intervals[-1] for intervals in its]
            in_flight = sum(interval.in_flight for interval in last)
            if not any(interval.sent for intervals in its for interval in intervals):
                # By chance nothing was due, which says nothing of the server.
                continue
            # Where requests take long by nature, some are always in flight.
            rested = in_flight <= max(2.0, rate) or self._judge([measured])[0] != "fails"
            if rested and not any(interval.failures for interval in last):
                return
        if failed and not answered:
            self._lost = True
            after.why = f"{after.why}; after it the server did not come back".removeprefix("; ")

    def _run(self, segment: Segment) -> Generator[Segment, Measured, Measured]:
        measured = yield segment
        self._segments += 1
        return measured


def find_capacity(
    judge: Judge,
    bottleneck: Bottleneck,
    *,
    objective: str,
    start: float,
    most: float,
    precision: float,
    seconds: float,
) -> Shape:
    """The shape of a search; see `Search`. Rates in requests a second."""
    search = Search(
        judge,
        bottleneck,
        objective=objective,
        start=start,
        most=most,
        precision=precision,
        seconds=seconds,
    )
    return search.shape()
