"""Golden vectors: how they are recorded, and which mix-ups they reveal."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from triptych.loadtests import golden as module
from triptych.loadtests.dialects import Vector
from triptych.loadtests.golden import COMMON, GOLDEN_TEXTS, SAME, Golden
from triptych.loadtests.scenario import TASKS, Task

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
        golden.learn(request, answer(request.flow.task, text))
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


@pytest.mark.parametrize(
    ("answer", "pairs", "why"),
    [
        (
            instead(code_query="retrieval.query", code_passage="retrieval.passage"),
            ["retrieval.query and code.query", "retrieval.passage and code.passage"],
            "one variant",
        ),
        (
            instead(retrieval_passage="retrieval.query"),
            ["retrieval.query and retrieval.passage"],
            "prompt",
        ),
        (
            lambda task, text: vector_of(task, "" if task == "text-matching" else text),
            ["task text-matching"],
            "whatever the text",
        ),
    ],
)
def test_mix_up_is_found_without_known_vectors(answer: Answer, pairs: list[str], why: str) -> None:
    found = asked(noisy(answer, 1e-3)).complaints()
    for pair, complaint in zip(pairs, found, strict=True):
        assert pair in complaint
        assert why in complaint


def test_rounding_is_fine() -> None:
    known = asked(RIGHT)
    assert known.compare(asked(RIGHT)) == []
    assert known.compare(asked(noisy(RIGHT, 0.05))) == []
    # Also where the tasks of the model hardly differ.
    assert asked(alike(RIGHT, 0.05)).compare(asked(noisy(alike(RIGHT, 0.05), 0.05))) == []


def test_swapped_pools_are_named() -> None:
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


def test_similar_tasks_are_still_told_apart() -> None:
    known = asked(alike(RIGHT, 0.05))
    wrong = asked(noisy(alike(instead(code_query="retrieval.query"), 0.05), 0.01))
    cosines = (known.vectors["code.query"] * wrong.vectors["code.query"]).sum(axis=1)
    assert cosines[: len(COMMON)].min() > SAME
    [found] = known.compare(wrong)
    assert found.startswith("task code.query answers with the vectors of retrieval.query")


def test_vectors_of_no_task_are_found() -> None:
    def retrained(task: Task, text: str) -> Vector:
        return vector_of(task, f"retrained {text}") if task == "text-matching" else vector_of(task, text)

    def near_another(task: Task, text: str) -> Vector:
        return noisy(instead(text_matching="code.query"), 0.5 if task == "text-matching" else 0)(task, text)

    for answer in (retrained, near_another):
        [found] = asked(RIGHT).compare(asked(answer))
        assert found.startswith("task text-matching answers with other vectors (8 of 8 texts")


def test_other_dimensions_and_unknown_tasks_are_found() -> None:
    known = asked(RIGHT, source="https://right.example")
    found = known.compare(asked(lambda task, text: vector_of(task, text)[:16]))
    assert len(found) == len(TASKS)
    assert all(complaint.endswith("has 16 dimensions, not 32") for complaint in found)
    del known.vectors["code.query"]
    [missing] = known.compare(asked(RIGHT))
    assert missing.startswith("task code.query")
    assert "https://right.example" in missing


def test_file_round_trip(tmp_path: Path) -> None:
    golden, file = asked(RIGHT, source="https://right.example, 2026-11-25"), tmp_path / "golden.npz"
    with file.open("wb") as opened:
        golden.save(opened)
    memory = io.BytesIO(file.read_bytes())
    for loaded in (Golden.load(file), Golden.load(memory)):
        assert loaded.source == golden.source
        assert list(loaded.vectors) == list(TASKS)
        for task, rows in golden.vectors.items():
            np.testing.assert_array_equal(loaded.vectors[task], rows)


def test_file_with_other_texts_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "golden.npz"
    with file.open("wb") as opened:
        asked(RIGHT).save(opened)
    changed = {**GOLDEN_TEXTS, "code.query": (*GOLDEN_TEXTS["code.query"][:-1], "a later thought")}
    monkeypatch.setattr(module, "GOLDEN_TEXTS", changed)
    with pytest.raises(ValueError, match=r"golden.npz was recorded with other texts: record it again"):
        Golden.load(file)


def saved(**arrays: Vector) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


@pytest.mark.parametrize(
    "content", [b"", b"hello", saved(weights=np.ones(3)), saved(source=np.ones(99))[:300]]
)
def test_other_file_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "golden.npz"
    file.write_bytes(content)
    for path in (file, tmp_path / "missing.npz"):
        with pytest.raises(ValueError, match=rf"{path.name} holds no golden vectors"):
            Golden.load(path)
