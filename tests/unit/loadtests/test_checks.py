"""Everything that can be wrong with a reply, next to the same reply without the fault."""

from typing import Any

import numpy as np
import pytest

from triptych.loadtests.checks import Checker
from triptych.loadtests.dialects import Reply, Vector
from triptych.loadtests.golden import GOLDEN_TEXTS, Golden
from triptych.loadtests.request import Request, Task

DIMENSIONS = 32


def asked(inputs: int = 3, **fields: Any) -> Request:
    return Request(**{"flow": "query", "task": "retrieval.query", "inputs": ["text"] * inputs} | fields)


def unit(*shape: int, seed: int = 0) -> Vector:
    values: Vector = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    values /= np.linalg.norm(values, axis=-1, keepdims=True)
    return values


def answered(vectors: list[Vector], indexes: list[int] | None = None, tokens: int | None = 9) -> Reply:
    return Reply(vectors, list(range(len(vectors))) if indexes is None else indexes, [], tokens)


def ranked(scores: list[float], indexes: list[int], tokens: int | None = 9) -> Reply:
    return Reply([], indexes, scores, tokens)


def good() -> list[Vector]:
    return list(unit(3, DIMENSIONS))


def known() -> Golden:
    vectors: dict[Task, Vector] = {
        task: unit(len(texts), DIMENSIONS, seed=number)
        for number, (task, texts) in enumerate(GOLDEN_TEXTS.items(), 1)
    }
    return Golden("a test", vectors)


def with_golden(place: int, number: int) -> tuple[Request, list[Vector], Checker]:
    """A request with a golden input at `place`, its right vectors, and a checker."""
    vectors, golden = good(), known()
    vectors[place] = golden.vectors["retrieval.query"][number]
    return asked(golden={place: number}), vectors, Checker(golden)


def test_good_reply_passes() -> None:
    assert Checker().check(asked(), answered(good())) is None
    assert Checker(known()).check(asked(), answered(good())) is None
    assert Checker().check(asked(1), answered(good()[:1])) is None


def test_missing_tokens() -> None:
    assert Checker().check(asked(), answered(good(), tokens=0)) == "wrong: tokens"


@pytest.mark.parametrize("count", [0, 2, 4])
def test_wrong_number_of_vectors(count: int) -> None:
    assert Checker().check(asked(), answered(list(unit(count, DIMENSIONS)))) == "wrong: count"


@pytest.mark.parametrize("indexes", [[1, 0, 2], [0, 0, 2], [1, 2, 3], [0, 1]])
def test_wrong_indexes(indexes: list[int]) -> None:
    assert Checker().check(asked(), answered(good(), indexes)) == "wrong: order"


def test_requested_dimensions_are_required() -> None:
    request = asked(dimensions=DIMENSIONS)
    assert Checker().check(request, answered(good())) is None
    assert Checker().check(request, answered(list(unit(3, DIMENSIONS - 1)))) == "wrong: dimension"


def test_default_dimensions_are_learned_per_task() -> None:
    checker = Checker()
    assert checker.check(asked(), answered([2 * vector for vector in unit(3, 7)])) == "wrong: norm"
    assert checker.check(asked(), answered(good())) is None
    assert checker.check(asked(), answered(list(unit(3, 16)))) == "wrong: dimension"
    assert checker.check(asked(task="text-matching"), answered(list(unit(3, 16)))) is None
    assert checker.check(asked(), answered(good())) is None


def test_multivector_only_where_requested() -> None:
    matrices = [unit(tokens, DIMENSIONS) for tokens in (4, 1, 6)]
    assert Checker().check(asked(), answered(matrices)) == "wrong: dimension"
    assert Checker().check(asked(multivector=True), answered(matrices)) is None
    assert Checker().check(asked(multivector=True), answered(good())) == "wrong: dimension"


@pytest.mark.parametrize(("value", "kind"), [(np.nan, "not finite"), (np.inf, "not finite"), (1.5, "norm")])
@pytest.mark.parametrize("multivector", [False, True])
def test_one_bad_number_is_found(value: float, kind: str, multivector: bool) -> None:
    vectors = [unit(5, DIMENSIONS) for _ in range(3)] if multivector else good()
    vectors[2] = vectors[2].copy()
    vectors[2][..., -1] = value
    assert Checker().check(asked(multivector=multivector), answered(vectors)) == f"wrong: {kind}"


@pytest.mark.parametrize(("factor", "kind"), [(1.005, None), (0.995, None), (1.02, "norm"), (0.0, "norm")])
def test_norm_tolerates_rounding(factor: float, kind: str | None) -> None:
    vectors = good()
    vectors[1] = vectors[1] * np.float32(factor)
    assert Checker().check(asked(), answered(vectors)) == (kind and f"wrong: {kind}")


def test_swapped_vectors_are_found() -> None:
    request, vectors, checker = with_golden(1, 6)
    vectors[0], vectors[1] = vectors[1], vectors[0]
    assert checker.check(request, answered(vectors)) == "wrong: golden"


def test_golden_check_tolerates_rounding() -> None:
    request, vectors, checker = with_golden(0, 2)
    right = vectors[0]
    aside = unit(DIMENSIONS, seed=99)
    aside -= (aside @ right) * right
    aside /= np.linalg.norm(aside)
    for cosine, kind in ((0.995, None), (0.98, "wrong: golden")):
        vectors[0] = (cosine * right + np.sqrt(1 - cosine**2) * aside).astype(np.float32)
        assert checker.check(request, answered(vectors)) == kind
    assert Checker(known(), same=0.97).check(request, answered(vectors)) is None


def test_cut_vector_is_compared_with_the_beginning() -> None:
    request, vectors, checker = with_golden(0, 2)
    cut = [vector[:16] / np.linalg.norm(vector[:16]) for vector in vectors]
    fewer = asked(dimensions=16, golden=request.golden)
    assert checker.check(fewer, answered(cut)) is None
    end = vectors[0][16:] / np.linalg.norm(vectors[0][16:])
    assert checker.check(fewer, answered([end, *cut[1:]])) == "wrong: golden"


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
    wrong = Checker().check(asked(kind="rerank"), ranked(scores, indexes))
    assert wrong == (kind and f"wrong: {kind}")
