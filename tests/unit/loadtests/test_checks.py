"""Everything that can be wrong with a reply, next to the same reply without the fault."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from triptych.loadtests.checks import Checker
from triptych.loadtests.dialects import Dialect, Reply, Target, Vector
from triptych.loadtests.golden import GOLDEN_TEXTS, Golden
from triptych.loadtests.scenario import Flow, Request, Task

DIMENSIONS = 32


def asked(inputs: int = 3, golden: Mapping[int, int] = {}, **fields: Any) -> Request:
    flow = Flow(**{"name": "query", "task": "retrieval.query"} | fields)
    return Request(flow, ["text"] * inputs, golden=golden)


def unit(*shape: int, seed: int = 0) -> Vector:
    values: Vector = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    values /= np.linalg.norm(values, axis=-1, keepdims=True)
    return values


def answered(vectors: list[Vector], indexes: list[int] | None = None, tokens: int | None = 9) -> Reply:
    return Reply(vectors, list(range(len(vectors))) if indexes is None else indexes, [], tokens)


def ranked(scores: list[float], indexes: list[int], tokens: int | None = 9) -> Reply:
    return Reply([], indexes, scores, tokens)


GOOD = list(unit(3, DIMENSIONS))
MATRICES = [unit(tokens, DIMENSIONS) for tokens in (4, 1, 6)]


def altered(vectors: list[Vector], value: float) -> list[Vector]:
    """The vectors with one other number, the last."""
    last = vectors[-1].copy()
    last[..., -1] = value
    return [*vectors[:-1], last]


def scaled(factor: float) -> list[Vector]:
    return [GOOD[0], GOOD[1] * np.float32(factor), GOOD[2]]


def known() -> Golden:
    vectors: dict[Task, Vector] = {
        task: unit(len(texts), DIMENSIONS, seed=number)
        for number, (task, texts) in enumerate(GOLDEN_TEXTS.items(), 1)
    }
    return Golden("a test", vectors)


def checking(golden: Golden | None = None) -> Checker:
    return Checker(Dialect(Target(addresses={"": "http://a.example"}, dialect="jina", model="m")), golden)


def with_golden(place: int, number: int) -> tuple[Request, list[Vector], Checker]:
    """A request with a golden input at `place`, its right vectors, and a checker."""
    vectors, golden = GOOD.copy(), known()
    vectors[place] = golden.vectors["retrieval.query"][number]
    return asked(golden={place: number}), vectors, checking(golden)


@pytest.mark.parametrize(
    ("fields", "vectors", "kind"),
    [
        ({}, GOOD, None),
        ({"inputs": 1}, GOOD[:1], None),
        *(({}, vectors, "count") for vectors in ([], GOOD[:2], [*GOOD, GOOD[0]])),
        ({"dimensions": DIMENSIONS}, GOOD, None),
        ({"dimensions": DIMENSIONS}, list(unit(3, DIMENSIONS - 1)), "dimension"),
        ({"multivector": True}, MATRICES, None),
        ({"multivector": True}, GOOD, "dimension"),
        ({}, MATRICES, "dimension"),
        *(({}, altered(GOOD, value), "not finite") for value in (np.nan, np.inf)),
        *(({"multivector": True}, altered(MATRICES, value), "not finite") for value in (np.nan, np.inf)),
        ({}, altered(GOOD, 1.5), "norm"),
        ({"multivector": True}, altered(MATRICES, 1.5), "norm"),
        # Rounding.
        *(({}, scaled(factor), None) for factor in (1.005, 0.995)),
        *(({}, scaled(factor), "norm") for factor in (1.02, 0.0)),
    ],
)
def test_vectors_are_checked(fields: dict[str, Any], vectors: list[Vector], kind: str | None) -> None:
    for checker in (checking(), checking(known())):
        assert checker.fault(asked(**fields), answered(vectors)) == kind


def test_missing_tokens() -> None:
    assert checking().fault(asked(), answered(GOOD, tokens=0)) == "tokens"


@pytest.mark.parametrize("indexes", [[1, 0, 2], [0, 0, 2], [1, 2, 3], [0, 1]])
def test_wrong_indexes(indexes: list[int]) -> None:
    assert checking().fault(asked(), answered(GOOD, indexes)) == "order"


def test_default_dimensions_are_learned_per_task() -> None:
    checker = checking()
    assert checker.fault(asked(), answered([2 * vector for vector in unit(3, 7)])) == "norm"
    assert checker.fault(asked(), answered(GOOD)) is None
    assert checker.fault(asked(), answered(list(unit(3, 16)))) == "dimension"
    assert checker.fault(asked(task="text-matching"), answered(list(unit(3, 16)))) is None


def test_swapped_vectors_are_found() -> None:
    request, vectors, checker = with_golden(1, 6)
    vectors[0], vectors[1] = vectors[1], vectors[0]
    assert checker.fault(request, answered(vectors)) == "golden"


def test_golden_check_tolerates_rounding() -> None:
    request, vectors, checker = with_golden(0, 2)
    right = vectors[0]
    aside = unit(DIMENSIONS, seed=99)
    aside -= (aside @ right) * right
    aside /= np.linalg.norm(aside)
    for cosine, kind in ((0.995, None), (0.98, "golden")):
        vectors[0] = (cosine * right + np.sqrt(1 - cosine**2) * aside).astype(np.float32)
        assert checker.fault(request, answered(vectors)) == kind


def test_cut_vector_is_compared_with_the_beginning() -> None:
    request, vectors, checker = with_golden(0, 2)
    cut = [vector[:16] / np.linalg.norm(vector[:16]) for vector in vectors]
    fewer = asked(dimensions=16, golden=request.golden)
    assert checker.fault(fewer, answered(cut)) is None
    end = vectors[0][16:] / np.linalg.norm(vectors[0][16:])
    assert checker.fault(fewer, answered([end, *cut[1:]])) == "golden"


@pytest.mark.parametrize(
    ("scores", "indexes", "kind"),
    [
        ([0.9, 0.5, -0.2], [2, 0, 1], None),
        ([0.5, 0.5, 0.5], [0, 1, 2], None),
        ([0.9, 0.5], [2, 0], "count"),
        ([0.9, 0.5, 0.2], [2, 0, 2], "order"),
        ([0.9, 0.5, 0.2], [1, 2, 3], "order"),
        ([0.5, 0.9, 0.2], [2, 0, 1], "order"),
        ([0.9, float("nan"), 0.2], [2, 0, 1], "not finite"),
    ],
)
def test_ranking_is_complete_and_sorted(scores: list[float], indexes: list[int], kind: str | None) -> None:
    assert checking().fault(asked(kind="rerank"), ranked(scores, indexes)) == kind
