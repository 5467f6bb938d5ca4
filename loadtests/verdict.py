"""Verdict on one rate of a capacity search: whether it meets the objectives, with confidence."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from triptych.loadtests import estimates
from triptych.loadtests.objectives import Objective, Objectives
from triptych.loadtests.results import Measured, wrong
from triptych.loadtests.slo import Bound, bounded, has_flow

# A p99 of fewer replies rests on one or two of them.
ENOUGH_REPLIES = 200
ENOUGH_FOR_P999 = 2000
# Below this share of answered to offered requests, the queue grows.
KEPT_UP = 0.9

Verdict = Literal["holds", "fails", "unclear"]


class Ruling(NamedTuple):
    """A verdict, its reason, and whether the values themselves meet the objectives, however close."""

    verdict: Verdict
    why: str = ""
    met: bool = False


def requests_needed(objectives: Objectives, shares: Mapping[str, float]) -> float:
    """How many requests bring enough replies of every judged flow; `shares`: of each flow in the requests."""
    return max(_enough(one) / shares.get(one.flow or "", 1.0) for one in objectives.of_rates)


def holds(measured: Sequence[Measured], objectives: Objectives) -> Ruling:
    """The verdict on a rate.

    "unclear": a bound lies within the confidence interval, or a judged flow has too few replies. Objectives
    apply whatever segments they name.
    """
    if count := wrong(measured):
        return Ruling("fails", f"{count} wrong replies")
    answered, offered = estimates.rate(measured, "done"), estimates.rate(measured, "sent")
    if answered.high < KEPT_UP * offered.value:
        return Ruling("fails", f"{answered.value:.1f} of {offered.value:.1f} requests/s answered")
    unclear: list[str] = []
    met = True
    for objective in objectives.of_rates:
        if not has_flow(measured, objective.flow):
            return Ruling("fails", f"{objective.who}no such flow")
        for bound in bounded(measured, objective) if estimates.sent(measured, objective.flow) else ():
            why = f"{objective.who}{bound.figure} {bound.measured}"
            if (verdict := _confident(bound)) == "fails":
                return Ruling("fails", why)
            if verdict == "unclear":
                unclear.append(why)
                met = met and bound.holds
        if (replies := estimates.replies(measured, objective.flow)) < _enough(objective):
            unclear.append(f"{objective.who}{replies} of {_enough(objective)} replies")
    return Ruling("unclear", unclear[0], met) if unclear else Ruling("holds", met=True)


def _enough(objective: Objective) -> int:
    return ENOUGH_REPLIES if objective.p999_ms is None else ENOUGH_FOR_P999


def _confident(bound: Bound) -> Verdict:
    # Only very many requests could prove a small share of failures.
    if bound.holds and (bound.figure == "failures" or not bound.close):
        return "holds"
    return "unclear" if bound.close else "fails"
