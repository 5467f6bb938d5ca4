"""Each thing that can be wrong with a reply, beside the same reply without it."""

from typing import Any

import numpy as np
import pytest

from loadtests.checks import Checker
from loadtests.dialects import Reply, Vector
from loadtests.golden import GOLDEN_TEXTS, Golden
from loadtests.request import Request, Task

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
    """A request whose input at `place` is a golden one, its right vectors, and a checker that knows."""
    vectors, golden = good(), known()
    vectors[place] = golden.vectors["retrieval.query"][number]
    return asked(golden={place: number}), vectors, Checker(golden)


def test_a_good_reply_is_good_with_and_without_golden_vectors() -> None:
    assert Checker().check(asked(), answered(good())) is None
    assert Checker(known()).check(asked(), answered(good())) is None
    assert Checker().check(asked(1), answered(good()[:1])) is None


@pytest.mark.parametrize("count", [0, 2, 4])
def test_another_number_of_vectors_is_wrong(count: int) -> None:
    assert Checker().check(asked(), answered(list(unit(count, DIMENSIONS)))) == "wrong: count"


@pytest.mark.parametrize("indexes", [[1, 0, 2], [0, 0, 2], [1, 2, 3], [0, 1]])
def test_indexes_that_do_not_count_up_are_wrong(indexes: list[int]) -> None:
    assert Checker().check(asked(), answered(good(), indexes)) == "wrong: order"


def test_dimensions_that_were_asked_for_are_held_from_the_first_reply_on() -> None:
    request = asked(dimensions=DIMENSIONS)
    assert Checker().check(request, answered(good())) is None
    assert Checker().check(request, answered(list(unit(3, DIMENSIONS - 1)))) == "wrong: dimension"


def test_one_vector_of_another_dimension_is_wrong() -> None:
    vectors = good()
    vectors[2] = unit(DIMENSIONS - 1)
    assert Checker().check(asked(), answered(vectors)) == "wrong: dimension"


def test_dimensions_that_were_not_asked_for_are_learned_for_each_task_from_a_good_reply() -> None:
    checker = Checker()
    assert checker.check(asked(), answered([2 * vector for vector in unit(3, 7)])) == "wrong: norm"
    assert checker.check(asked(), answered(good())) is None
    assert checker.check(asked(), answered(list(unit(3, 16)))) == "wrong: dimension"
    assert checker.check(asked(task="text-matching"), answered(list(unit(3, 16)))) is None
    assert checker.check(asked(), answered(good())) is None


def test_dimensions_that_were_asked_for_teach_nothing_about_those_that_were_not() -> None:
    checker = Checker()
    assert checker.check(asked(dimensions=16), answered(list(unit(3, 16)))) is None
    assert checker.check(asked(), answered(good())) is None


def test_the_golden_vectors_know_the_dimensions_before_the_first_reply() -> None:
    assert Checker(known()).check(asked(), answered(list(unit(3, 16)))) == "wrong: dimension"


def test_a_vector_for_each_token_where_one_was_asked_for_is_wrong_and_the_reverse() -> None:
    matrices = [unit(tokens, DIMENSIONS) for tokens in (4, 1, 6)]
    assert Checker().check(asked(), answered(matrices)) == "wrong: dimension"
    assert Checker().check(asked(multivector=True), answered(matrices)) is None
    assert Checker().check(asked(multivector=True), answered(good())) == "wrong: dimension"


def test_vectors_and_multi_vectors_of_a_task_each_have_their_own_dimension() -> None:
    checker = Checker(known())
    assert checker.check(asked(multivector=True), answered([unit(4, 8)] * 3)) is None
    assert checker.check(asked(), answered(good())) is None
    assert checker.check(asked(multivector=True), answered([unit(4, 9)] * 3)) == "wrong: dimension"


@pytest.mark.parametrize(("value", "kind"), [(np.nan, "not finite"), (np.inf, "not finite"), (1.5, "norm")])
@pytest.mark.parametrize("multivector", [False, True])
def test_one_bad_number_in_the_last_vector_is_found(value: float, kind: str, multivector: bool) -> None:
    vectors = [unit(5, DIMENSIONS) for _ in range(3)] if multivector else good()
    vectors[2] = vectors[2].copy()
    vectors[2][..., -1] = value
    assert Checker().check(asked(multivector=multivector), answered(vectors)) == f"wrong: {kind}"


@pytest.mark.parametrize(("factor", "kind"), [(1.005, None), (0.995, None), (1.02, "norm"), (0.0, "norm")])
def test_a_length_may_be_off_by_what_rounding_does(factor: float, kind: str | None) -> None:
    vectors = good()
    vectors[1] = vectors[1] * np.float32(factor)
    assert Checker().check(asked(), answered(vectors)) == (kind and f"wrong: {kind}")


def test_a_golden_vector_at_its_place_is_right_and_counted() -> None:
    request, vectors, checker = with_golden(1, 6)
    assert checker.check(request, answered(vectors)) is None
    assert checker.compared == 1


def test_swapped_vectors_are_found_though_their_indexes_look_right() -> None:
    request, vectors, checker = with_golden(1, 6)
    vectors[0], vectors[1] = vectors[1], vectors[0]
    assert checker.check(request, answered(vectors)) == "wrong: golden"


def test_the_golden_vector_of_another_task_is_wrong() -> None:
    request, vectors, checker = with_golden(0, 2)
    vectors[0] = known().vectors["code.query"][2]
    assert checker.check(request, answered(vectors)) == "wrong: golden"


def test_a_golden_vector_may_be_rounded_but_not_turned() -> None:
    request, vectors, checker = with_golden(0, 2)
    right = vectors[0]
    aside = unit(DIMENSIONS, seed=99)
    aside -= (aside @ right) * right
    aside /= np.linalg.norm(aside)
    for cosine, kind in ((0.995, None), (0.98, "wrong: golden")):
        vectors[0] = (cosine * right + np.sqrt(1 - cosine**2) * aside).astype(np.float32)
        assert checker.check(request, answered(vectors)) == kind
    assert Checker(known(), same=0.97).check(request, answered(vectors)) is None


def test_fewer_dimensions_are_held_against_the_beginning_of_the_golden_vector() -> None:
    request, vectors, checker = with_golden(0, 2)
    cut = [vector[:16] / np.linalg.norm(vector[:16]) for vector in vectors]
    fewer = asked(dimensions=16, golden=request.golden)
    assert checker.check(fewer, answered(cut)) is None
    end = vectors[0][16:] / np.linalg.norm(vectors[0][16:])
    assert checker.check(fewer, answered([end, *cut[1:]])) == "wrong: golden"


def test_tokens_that_a_server_owes_are_missed() -> None:
    assert Checker().check(asked(), answered(good(), tokens=0)) == "wrong: tokens"
    assert Checker().check(asked(), answered(good(), tokens=None)) is None
    rerank = asked(2, kind="rerank")
    assert Checker().check(rerank, ranked([0.5, 0.1], [1, 0], tokens=0)) == "wrong: tokens"


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
def test_a_ranking_has_every_document_once_and_the_best_first(
    scores: list[float], indexes: list[int], kind: str | None
) -> None:
    wrong = Checker().check(asked(kind="rerank"), ranked(scores, indexes))
    assert wrong == (kind and f"wrong: {kind}")
