"""Verdict on one rate of a capacity search: whether it meets the objectives, with confidence."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from loadtests import estimates
from loadtests.objectives import BOUNDS, Objective, Objectives
from loadtests.results import Measured
from loadtests.slo import Bound, bounded, has_flow, prefix, spaced

# A p99 of fewer replies rests on one or two of them.
ENOUGH_REPLIES = 200
ENOUGH_FOR_P999 = 2000
# Below this share of answered to offered requests, the queue grows.
KEPT_UP = 0.9
OF_A_RATE = tuple(name for name in BOUNDS if name not in ("capacity", "p99_over_idle_p50"))

Verdict = Literal["holds", "fails", "unclear"]


class Few(NamedTuple):
    """Too few replies for a verdict."""

    replies: int
    needed: int


def holds(measured: Sequence[Measured], objectives: Objectives) -> tuple[Verdict, str]:
    """The verdict on an open loop's rate, and the reason.

    "unclear": a bound lies within the confidence interval, or a judged flow has too few replies (`too_few`).
    Objectives apply whatever segments they name. Raises `ValueError` if none of them can judge a rate.
    """
    if count := estimates.wrong(measured):
        return "fails", f"{count} wrong replies"
    answered, offered = estimates.throughput(measured), estimates.offered(measured)
    if answered.high < KEPT_UP * offered.value:
        return "fails", f"{answered.value:.1f} of {offered.value:.1f} requests/s answered"
    judged = [(objective, list(bounded(measured, objective))) for objective in objectives.objective]
    judged = [(objective, bounds) for objective, bounds in judged if bounds]
    if not judged:
        raise ValueError(f"--slo: no objective can judge a rate; give at least one of {', '.join(OF_A_RATE)}")
    unclear = []
    for objective, bounds in judged:
        who = prefix(objective)
        if not has_flow(measured, objective.flow):
            return "fails", f"{who}no such flow"
        if not estimates.sent(measured, objective.flow):
            unclear.append(f"{who}nothing was due")
            continue
        for bound in bounds:
            verdict, value = _confident(bound)
            if verdict == "fails":
                return verdict, f"{who}{bound.what} {value}"
            if verdict == "unclear":
                unclear.append(f"{who}{bound.what} {value}")
        if few := _few(measured, objective):
            unclear.append(f"{who}{few.replies} of {few.needed} replies")
    return ("unclear", unclear[0]) if unclear else ("holds", "")


def too_few(measured: Sequence[Measured], objectives: Objectives) -> Few | None:
    """The judged flow that lacks the largest share of the replies it needs; None if all have enough."""
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


def _confident(bound: Bound) -> tuple[Verdict, str]:
    found = bound.found
    if found is None:
        return "fails", "of no reply"
    value = f"{found.value:.4g}{spaced(bound.unit)}"
    # Only very many requests could prove a small share of failures.
    high = found.value if bound.what == "failures" else found.high
    if bound.at == "least":
        high, low, limit = -found.low, -found.high, -bound.bound
    else:
        low, limit = found.low, bound.bound
    return ("fails" if low > limit else "holds" if high <= limit else "unclear"), value
