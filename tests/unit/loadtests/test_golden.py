"""Vectors known to be right: how they are recorded, and which mix-ups they show."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from loadtests import golden as module
from loadtests.dialects import Reply, Vector, pool_of
from loadtests.golden import COMMON, GOLDEN_TEXTS, SAME, Golden
from loadtests.request import TASKS, Task

DIMENSIONS = 32
Answer = Callable[[Task, str], Vector]


def vector_of(task: Task, text: str) -> Vector:
    """Another one for each task and text."""
    values = np.random.default_rng(list(f"{task}|{text}".encode())).standard_normal(DIMENSIONS)
    return (values / np.linalg.norm(values)).astype(np.float32)


def asked(answer: Answer, source: str = "a test") -> Golden:
    """What is learned from a deployment that answers so."""
    golden = Golden(source)
    for request in golden.requests():
        [text] = request.inputs
        assert isinstance(text, str)
        golden.learn(request, Reply([answer(request.task, text)], [0], [], 5))
    return golden


def instead(**other: Task) -> Answer:
    """Answers with the vectors of another task where `other` names one, with _ for . and -."""
    names = {task: other.get(task.replace(".", "_").replace("-", "_"), task) for task in TASKS}
    return lambda task, text: vector_of(names[task], text)


def noisy(answer: Answer, size: float) -> Answer:
    def give(task: Task, text: str) -> Vector:
        noise = size * vector_of(task, f"noise for {text}")
        return (answer(task, text) + noise).astype(np.float32)

    return give


def alike(answer: Answer, share: float) -> Answer:
    """Tasks and texts differ by little, as those of a model that was never trained."""
    return lambda task, text: (vector_of("code.query", text) + share * answer(task, text)).astype(np.float32)


RIGHT = instead()


def test_every_task_is_asked_for_its_texts_one_at_a_time_and_some_are_asked_of_all() -> None:
    requests = Golden.requests()
    assert {request.task for request in requests} == set(TASKS)
    assert all(len(request.inputs) == 1 for request in requests)
    for request in requests:
        assert request.inputs == [GOLDEN_TEXTS[request.task][request.golden[0]]]
    for texts in GOLDEN_TEXTS.values():
        assert texts[: len(COMMON)] == COMMON
        assert len(set(texts)) == len(texts)


def test_what_is_learned_has_length_one_and_stands_at_its_texts_number() -> None:
    golden = asked(lambda task, text: 3 * vector_of(task, text))
    for task, texts in GOLDEN_TEXTS.items():
        rights = np.stack([vector_of(task, text) for text in texts])
        np.testing.assert_allclose(golden.vectors[task], rights, atol=1e-6)


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_a_vector_that_nothing_can_be_held_against_is_refused(bad: float) -> None:
    with (
        np.errstate(invalid="ignore"),
        pytest.raises(ValueError, match=r"task retrieval.query .* zero or not"),
    ):
        asked(lambda task, text: np.full(DIMENSIONS, bad, np.float32))


def test_replies_without_one_vector_or_of_several_dimensions_are_refused() -> None:
    request = Golden.requests()[0]
    for vectors in ([], [np.ones(4, np.float32)] * 2, [np.ones((2, 4), np.float32)]):
        with pytest.raises(ValueError, match="has not one vector"):
            Golden("a test").learn(request, Reply(vectors, [0], [], 5))
    golden = Golden("a test")
    golden.learn(request, Reply([np.ones(4, np.float32)], [0], [], 5))
    with pytest.raises(ValueError, match="4 and with 5 dimensions"):
        golden.learn(request, Reply([np.ones(5, np.float32)], [0], [], 5))


def test_nothing_is_wrong_with_vectors_that_differ_by_task_and_text() -> None:
    assert asked(RIGHT).complaints() == []
    assert asked(alike(RIGHT, 0.1)).complaints() == []


def test_two_pools_that_answer_with_the_same_vectors_are_named() -> None:
    golden = asked(noisy(instead(code_query="retrieval.query", code_passage="retrieval.passage"), 1e-3))
    found = golden.complaints()
    assert len(found) == 2
    assert any("retrieval.query and code.query" in complaint for complaint in found)
    assert any("retrieval.passage and code.passage" in complaint for complaint in found)
    assert all("one variant" in complaint for complaint in found)


def test_a_prompt_that_makes_no_difference_is_told_from_a_wrong_pool() -> None:
    [found] = asked(noisy(instead(retrieval_passage="retrieval.query"), 1e-3)).complaints()
    assert "retrieval.query and retrieval.passage" in found
    assert "prompt" in found


def test_one_vector_for_every_text_is_named() -> None:
    golden = asked(lambda task, text: vector_of(task, "" if task == "text-matching" else text))
    assert golden.complaints() == ["task text-matching answers with the same vector whatever the text"]


def test_a_right_deployment_is_not_complained_about_whatever_rounding_does() -> None:
    known = asked(RIGHT)
    assert known.compare(asked(RIGHT)) == []
    assert known.compare(asked(noisy(RIGHT, 0.05))) == []
    # Also where the tasks of the model hardly differ.
    assert asked(alike(RIGHT, 0.05)).compare(asked(noisy(alike(RIGHT, 0.05), 0.05))) == []


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_the_task_whose_vectors_come_instead_is_named(noise: float) -> None:
    [found] = asked(RIGHT).compare(asked(noisy(instead(code_query="retrieval.query"), noise)))
    assert found.startswith("task code.query answers with the vectors of retrieval.query")
    assert "8 of 8 texts" in found


def test_pools_that_have_changed_places_are_both_named() -> None:
    swapped = instead(
        code_query="retrieval.query",
        code_passage="retrieval.passage",
        retrieval_query="code.query",
        retrieval_passage="code.passage",
    )
    assert asked(swapped).complaints() == []
    found = asked(RIGHT).compare(asked(swapped))
    assert [complaint.split(" (")[0] for complaint in found] == [
        "task retrieval.query answers with the vectors of code.query",
        "task retrieval.passage answers with the vectors of code.passage",
        "task code.query answers with the vectors of retrieval.query",
        "task code.passage answers with the vectors of retrieval.passage",
    ]


def test_a_wrong_pool_is_named_also_where_the_tasks_hardly_differ() -> None:
    known = asked(alike(RIGHT, 0.05))
    wrong = asked(noisy(alike(instead(code_query="retrieval.query"), 0.05), 0.01))
    cosines = (known.vectors["code.query"] * wrong.vectors["code.query"]).sum(axis=1)
    assert cosines[: len(COMMON)].min() > SAME
    [found] = known.compare(wrong)
    assert found.startswith("task code.query answers with the vectors of retrieval.query")


def test_tasks_that_have_the_same_vectors_are_not_taken_for_each_other() -> None:
    """These are complained about by themselves."""
    known = asked(alike(RIGHT, 1e-3))
    assert known.compare(asked(alike(instead(code_query="retrieval.query"), 1e-3))) == []
    assert known.complaints() != []


def test_vectors_of_no_known_task_are_others() -> None:
    def retrained(task: Task, text: str) -> Vector:
        return vector_of(task, f"retrained {text}") if task == "text-matching" else vector_of(task, text)

    def near_another(task: Task, text: str) -> Vector:
        return noisy(instead(text_matching="code.query"), 0.5 if task == "text-matching" else 0)(task, text)

    for answer in (retrained, near_another):
        [found] = asked(RIGHT).compare(asked(answer))
        assert found.startswith("task text-matching answers with other vectors (8 of 8 texts")


def test_one_text_that_went_wrong_is_enough() -> None:
    last = GOLDEN_TEXTS["code.passage"][-1]

    def once(task: Task, text: str) -> Vector:
        return noisy(RIGHT, 0.3 if (task, text) == ("code.passage", last) else 0)(task, text)

    [found] = asked(RIGHT).compare(asked(once))
    assert found.startswith("task code.passage answers with other vectors (1 of 8 texts")


def test_other_dimensions_and_tasks_that_were_never_recorded_are_complained_about() -> None:
    known = asked(RIGHT, source="https://right.example")
    found = known.compare(asked(lambda task, text: vector_of(task, text)[:16]))
    assert len(found) == len(TASKS)
    assert all(complaint.endswith("has 16 dimensions, not 32") for complaint in found)
    del known.vectors["code.query"]
    [missing] = known.compare(asked(RIGHT))
    assert missing.startswith("task code.query")
    assert "https://right.example" in missing


def test_a_deployment_that_was_asked_for_some_tasks_is_held_against_those_alone() -> None:
    some = asked(RIGHT)
    some.vectors = {task: rows for task, rows in some.vectors.items() if pool_of(task) == "code"}
    assert asked(RIGHT).compare(some) == []


def test_a_vector_that_was_cut_is_held_against_the_beginning() -> None:
    golden = asked(RIGHT)
    right = vector_of("code.query", GOLDEN_TEXTS["code.query"][5])
    cosine = golden.similarity("code.query", 5, right[:8])
    assert cosine == pytest.approx(1, abs=1e-5)
    assert golden.similarity("code.query", 5, -right[:8]) == pytest.approx(-1, abs=1e-5)
    assert golden.similarity("code.query", 5, np.ones(DIMENSIONS + 1, np.float32)) is None
    assert Golden("empty").similarity("code.query", 5, right) is None


def test_a_file_holds_what_was_saved(tmp_path: Path) -> None:
    golden, file = asked(RIGHT, source="https://right.example, 2026-11-25"), tmp_path / "golden.npz"
    with file.open("wb") as opened:
        golden.save(opened)
    memory = io.BytesIO(file.read_bytes())
    for loaded in (Golden.load(file), Golden.load(memory)):
        assert loaded.source == golden.source
        assert list(loaded.vectors) == list(TASKS)
        for task, rows in golden.vectors.items():
            np.testing.assert_array_equal(loaded.vectors[task], rows)


def test_a_file_that_was_recorded_with_other_texts_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "golden.npz"
    with file.open("wb") as opened:
        asked(RIGHT).save(opened)
    changed = {**GOLDEN_TEXTS, "code.query": (*GOLDEN_TEXTS["code.query"][:-1], "a later thought")}
    monkeypatch.setattr(module, "GOLDEN_TEXTS", changed)
    with pytest.raises(ValueError, match=r"golden.npz was recorded with other texts: record it again"):
        Golden.load(file)


def damaged(content: bytes) -> bytes:
    return content[: len(content) // 2]


def array(content: bytes) -> bytes:
    file = io.BytesIO()
    np.save(file, np.ones(3))
    return file.getvalue()


def others(content: bytes) -> bytes:
    file = io.BytesIO()
    np.savez(file, weights=np.ones(3))
    return file.getvalue()


@pytest.mark.parametrize("change", [damaged, array, others, lambda _: b"", lambda _: b"hello"])
def test_a_file_that_holds_no_golden_vectors_is_refused_by_name(
    tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    content = io.BytesIO()
    asked(RIGHT).save(content)
    file = tmp_path / "golden.npz"
    file.write_bytes(change(content.getvalue()))
    with pytest.raises(ValueError, match=r"golden.npz holds no golden vectors .*loadtests golden"):
        Golden.load(file)
    with pytest.raises(ValueError, match=r"missing.npz holds no golden vectors"):
        Golden.load(tmp_path / "missing.npz")
