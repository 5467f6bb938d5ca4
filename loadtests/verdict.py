"""Whether one rate of a search holds the objectives, with confidence."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from loadtests import estimates
from loadtests.bounds import Bound, bounded, spaced, there, whose
from loadtests.confidence import Estimate
from loadtests.objectives import BOUNDS, Objective, Objectives
from loadtests.results import Measured

# A p99 of fewer replies rests on one or two of them.
ENOUGH_REPLIES = 200
ENOUGH_FOR_P999 = 2000
# In an open loop, less answered than this of what was offered is a queue that grows.
KEPT_UP = 0.9
OF_A_RATE = tuple(name for name in BOUNDS if name not in ("capacity", "p99_over_idle_p50"))

Verdict = Literal["holds", "fails", "unclear"]


class Few(NamedTuple):
    """Too few replies for a verdict."""

    replies: int
    needed: int


def holds(measured: Sequence[Measured], objectives: Objectives) -> tuple[Verdict, str]:
    """Whether an open loop's rate holds, with confidence, and why not.

    "unclear" where a confidence interval holds a bound, or a flow that is judged has too few replies, as
    `too_few` says. Objectives count whatever segments they name. Bounds of the capacity, on what was before
    the load and against a baseline do not; raises `ValueError` where there are no others.
    """
    if count := estimates.wrong(measured):
        return "fails", f"{count} wrong replies"
    answered, offered = estimates.throughput(measured), estimates.offered(measured)
    if answered.high < KEPT_UP * offered.value:
        return "fails", f"{answered.value:.1f} of {offered.value:.1f} requests/s answered"
    unclear, judged = "", 0
    for objective in objectives.objective:
        who, bounds = whose(objective), list(bounded(measured, objective))
        judged += len(bounds)
        if bounds and not there(measured, objective.flow):
            return "fails", f"{who}no such flow"
        if bounds and not estimates.sent(measured, objective.flow):
            unclear = unclear or f"{who}nothing was due"
            continue
        for bound in bounds:
            if bound.found is None:
                return "fails", f"{who}{bound.what}: no reply"
            verdict = _confident(bound, bound.found)
            why = f"{who}{bound.what} {bound.found.value:.4g}{spaced(bound.unit)}"
            if verdict == "fails":
                return verdict, why
            if verdict == "unclear":
                unclear = unclear or why
        if bounds and (few := _few(measured, objective)):
            unclear = unclear or f"{who}{few.replies} of {few.needed} replies"
    if not judged:
        raise ValueError(
            f"--slo: nothing that a rate is judged by; give at least one of {', '.join(OF_A_RATE)}"
        )
    return ("unclear", unclear) if unclear else ("holds", "")


def too_few(measured: Sequence[Measured], objectives: Objectives) -> Few | None:
    """Of the flows that a rate is judged by, the one that lacks the largest share of what a verdict needs;
    None where all have enough."""
    judged = (
        objective
        for objective in objectives.objective
        if any(getattr(objective, name) is not None for name in OF_A_RATE)
    )
    found = [few for few in (_few(measured, objective) for objective in judged) if few]
    return min(found, key=lambda few: few.replies / few.needed, default=None)


def _few(measured: Sequence[Measured], objective: Objective) -> Few | None:
    needed = ENOUGH_REPLIES if objective.p999_ms is None else ENOUGH_FOR_P999
    replies = estimates.replies(measured, objective.flow)
    return Few(replies, needed) if replies < needed else None


def _confident(bound: Bound, found: Estimate) -> Verdict:
    if bound.at == "least":
        return "fails" if found.high < bound.bound else "holds" if found.low >= bound.bound else "unclear"
    if found.low > bound.bound:
        return "fails"
    # That next to nothing failed could only be told with certainty from very many requests.
    high = found.value if bound.what == "failures" else found.high
    return "holds" if high <= bound.bound else "unclear"
