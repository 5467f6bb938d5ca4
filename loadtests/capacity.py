"""The search for the highest rate at which an objective holds (pure: it is told how each try went)."""

import math
from collections.abc import Callable, Generator, Sequence

from loadtests.results import Capacity, Limit, Measured, Probe, Segment
from loadtests.shapes import Shape
from loadtests.verdict import Few, Verdict

Judge = Callable[[Sequence[Measured]], tuple[Verdict, str]]
TooFew = Callable[[Sequence[Measured]], Few | None]
Bottleneck = Callable[[Sequence[Measured]], str | None]
Asking = Generator[Segment, Measured, Probe]
Bracket = tuple[float, float | None]
"""A rate that holds (0: none) and the lowest above it that does not (None: none)."""

GROWTH = 2.0
# A rate that is neither clearly good nor clearly bad is tried so often.
PATIENCE = 3
# A try with too few replies for a verdict is made longer, to so many times its seconds altogether.
LONGEST = 20.0
# What it is made longer by, of what the replies so far say: they come by chance.
MARGIN = 1.1
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
    """One search. `judge` says of what was measured at one rate whether the objective held, `too_few` whether
    it was too little to tell, and `bottleneck` why the harness may be the limit.

    Tries last `seconds`, or longer where fewer replies come than a verdict needs, and a fifth of `seconds`
    more before, in which the load settles. The rate found is within `precision` of one that fails, or `most`.

    Noise misleads in two ways. A rate that fails by chance, while the server stalls, hides all that lies
    above: the lowest that failed gets a second look, and the search goes on above where it holds then. A rate
    that holds by chance is not confirmed: the search goes lower, by more each time, until one is.
    """

    def __init__(
        self,
        judge: Judge,
        too_few: TooFew,
        bottleneck: Bottleneck,
        *,
        objective: str,
        start: float,
        most: float,
        precision: float,
        seconds: float,
    ) -> None:
        self._judge, self._too_few, self._bottleneck = judge, too_few, bottleneck
        self._objective, self._start, self._most = objective, start, most
        self._precision, self._seconds = precision, seconds
        self._probes: list[Probe] = []
        self._segments = 0
        # Requests that are due until a verdict's replies are there, where `seconds` bring fewer.
        self._requests = 0.0
        self._limit: str | None = None
        self._undecided = False
        self._lost = False

    def shape(self) -> Shape:
        """Double until it fails, halve what lies between, then confirm."""
        good, bad = yield from self._bracket()
        good, bad = yield from self._narrowed(good, bad)
        undecided = self._undecided
        if undecided:
            # What could not be told has not failed.
            bad = self._least_above(good, "fails")
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
        limited: Limit = "server" if bad else "range"
        if self._limit or undecided:
            limited = "harness" if self._limit else "replies"
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
        return self._lost or self._undecided or self._limit is not None

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
            good, bad = bad, self._least_above(bad, "fails", "unclear")
            if bad is None:
                good, bad = yield from self._climbed(good)
        return (yield from self._halved(good, bad))

    def _halved(self, good: float, bad: float | None) -> Generator[Segment, Measured, Bracket]:
        while good and bad and bad / good > 1 + self._precision and not self._over:
            rate = (good * bad) ** 0.5
            good, bad = (rate, bad) if (yield from self._holds(rate)) else (good, rate)
        return good, bad

    def _least_above(self, rate: float, *verdicts: Verdict) -> float | None:
        return min(
            (probe.rate for probe in self._probes if probe.rate > rate and probe.verdict in verdicts),
            default=None,
        )

    def _best_below(self, rate: float | None) -> float:
        held = (probe.rate for probe in self._probes if probe.verdict == "holds")
        return max((one for one in held if rate is None or one < rate), default=0.0)

    def _holds(self, rate: float, patience: int = PATIENCE) -> Generator[Segment, Measured, bool]:
        """Try `rate`, again where it is unclear; afterwards the backlog is gone."""
        probe = yield from self._try(f"probe {rate:.4g}/s", rate, patience, self._seconds)
        if probe.verdict != "holds":
            yield from self._recover(probe)
        return probe.verdict == "holds"

    def _confirm(self, rate: float) -> Generator[Segment, Measured, tuple[int, int]]:
        held = 0
        for number in range(CONFIRMATIONS):
            name = f"confirm {number + 1} of {CONFIRMATIONS} at {rate:.4g}/s"
            probe = yield from self._try(name, rate, 1, self._length(rate))
            # Unclear once more, after it has held with confidence, is no reason to go lower.
            held += probe.verdict == "holds" or (probe.verdict == "unclear" and self._has_held(rate))
            if probe.verdict == "fails":
                yield from self._recover(probe)
            if self._lost:
                return held, number + 1
        return held, CONFIRMATIONS

    def _has_held(self, rate: float) -> bool:
        return any(probe.rate == rate and probe.verdict == "holds" for probe in self._probes)

    def _try(self, name: str, rate: float, patience: int, seconds: float, *, spoilt: bool = False) -> Asking:
        """Ask for `rate`, once more where the harness was in the way: it may have been late by chance.

        `spoilt` says that it was just now.
        """
        measured: list[Measured] = []
        first, tries, spent = self._segments, 0, 0.0
        while True:
            measured.append((yield from self._put_on(name, rate, seconds)))
            spent += seconds
            verdict, why = self._judge(measured)
            few = self._too_few(measured) if verdict == "unclear" else None
            if few:
                name = f"{few.needed - few.replies} more replies at {rate:.4g}/s"
                seconds = self._more(few, spent)
                if spent + seconds > LONGEST * self._seconds:
                    break
                self._requests = max(self._requests, rate * (spent + seconds))
                continue
            tries += 1
            if verdict != "unclear" or tries == patience:
                break
            name, seconds = f"again {rate:.4g}/s", self._length(rate)
        reason = self._bottleneck(measured) if verdict != "holds" else None
        if few and not reason:
            self._undecided = True
            why = self._advice(few, spent + seconds)
        segments = list(range(first, self._segments))
        probe = Probe(rate=rate, verdict=verdict, segments=segments, why=reason or why)
        self._probes.append(probe)
        if reason and not spoilt:
            yield from self._recover(probe)
            if not self._lost:
                name, seconds = f"again {rate:.4g}/s", self._length(rate)
                return (yield from self._try(name, rate, patience, seconds, spoilt=True))
        self._limit = reason or self._limit
        return probe

    def _put_on(self, name: str, rate: float, seconds: float) -> Generator[Segment, Measured, Measured]:
        settle = self._seconds * SETTLE_SHARE
        segment = Segment(name=name, seconds=settle + seconds, settle=settle, rate=(rate, rate))
        return (yield from self._run(segment))

    def _length(self, rate: float) -> float:
        """How long a try has to be, as far as is known, to have the replies that a verdict needs."""
        return min(max(self._seconds, math.ceil(self._requests / rate)), LONGEST * self._seconds)

    def _more(self, few: Few, spent: float) -> float:
        """How many seconds more it takes until there are enough, as often again where none came."""
        wanted = MARGIN * (few.needed - few.replies) / few.replies * spent if few.replies else spent
        return max(self._seconds, math.ceil(wanted))

    def _advice(self, few: Few, wanted: float) -> str:
        """What to do where a rate cannot be tried as long as is wanted."""
        seconds = math.ceil(MARGIN * wanted / LONGEST)
        failed = any(probe.verdict == "fails" for probe in self._probes)
        other = "" if failed else " or a higher --start"
        return f"too few replies ({few.replies} of {few.needed}): give --seconds {seconds}{other}"

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
    too_few: TooFew,
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
        too_few,
        bottleneck,
        objective=objective,
        start=start,
        most=most,
        precision=precision,
        seconds=seconds,
    )
    return search.shape()
