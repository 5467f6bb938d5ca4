"""Golden vectors: the right vectors of a few texts, recorded from a deployment that was right."""

import zipfile
import zlib
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from triptych.loadtests.dialects import Vector, pool_of
from triptych.loadtests.scenario import TASKS, Flow, Request, Task

COMMON = (
    "The ferry leaves at seven and takes about forty minutes.",
    "Der Bäcker an der Ecke hat sonntags geschlossen.",
    "図書館は駅のすぐ前にあります。",
    "def area(width, height):\n    return width * height",
)
OWN: Mapping[str, tuple[str, ...]] = {
    "retrieval": (
        "how long does rye bread keep fresh",
        "Lighthouses warn ships of rocks and shallows; most of them run by themselves today.",
        "почему небо голубое",
        "Olive trees can live for a thousand years and still bear fruit.",
    ),
    "text-matching": (
        "The meeting has been moved to Thursday.",
        "Thursday is the new date of our meeting.",
        "La reunión se ha pasado al jueves.",
        "It rained all day and the match was called off.",
    ),
    "code": (
        "read a csv file and sum one column",
        "SELECT city, COUNT(*) FROM orders GROUP BY city HAVING COUNT(*) > 10;",
        "const unique = (items) => [...new Set(items)];",
        "retry an http request with exponential backoff in go",
    ),
}
GOLDEN_TEXTS: Mapping[Task, tuple[str, ...]] = {task: COMMON + OWN[pool_of(task)] for task in TASKS}

# bfloat16 and a different batch turn a vector far less, a different text or task far more.
SAME = 0.99
# Two pools or two prompts give more different vectors for one text.
TOO_SIMILAR = 0.9999
# Vectors this many times nearer to another task's belong to that task, however high both cosines are:
# rounding moves a vector away from both.
NEARER = 4


@dataclass
class Golden:
    """Unit vectors by task, float32 of (texts, dimensions), and where they come from."""

    source: str
    vectors: dict[Task, NDArray[np.float32]] = field(default_factory=dict)

    @property
    def texts(self) -> dict[Task, tuple[str, ...]]:
        """The texts of these vectors."""
        return {task: GOLDEN_TEXTS[task] for task in self.vectors}

    @staticmethod
    def requests(tasks: Container[Task] = TASKS) -> list[Request]:
        """The requests to record from, one text each."""
        return [
            Request(Flow(name=f"golden {task}", task=task), [text], golden={0: number})
            for task, texts in GOLDEN_TEXTS.items()
            if task in tasks
            for number, text in enumerate(texts)
        ]

    def learn(self, request: Request, vector: Vector) -> None:
        """Record the vector that came back for one of `requests`."""
        task, [number] = request.flow.task, request.golden.values()
        rows = self.vectors.setdefault(task, np.zeros((len(GOLDEN_TEXTS[task]), len(vector)), np.float32))
        rows[number] = _unit(vector)

    def similarity(self, task: Task, number: int, vector: Vector) -> float | None:
        """The cosine to the golden vector, cut to the same dimensions; None if there is no such vector."""
        rows = self.vectors.get(task)
        if rows is None or len(vector) > rows.shape[1]:
            return None
        return float(_unit(rows[number, : len(vector)]) @ _unit(vector))

    def complaints(self) -> list[str]:
        """What is wrong with these vectors by themselves."""
        found = [
            f"task {task} answers with the same vector whatever the text"
            for task, rows in self.vectors.items()
            if float((rows @ rows[0]).min()) > TOO_SIMILAR
        ]
        for one, other in combinations(self.vectors, 2):
            ones, others = self.vectors[one], self.vectors[other]
            if ones.shape == others.shape and _cosines(ones, others)[: len(COMMON)].min() > TOO_SIMILAR:
                same = pool_of(one) == pool_of(other)
                why = "is the prompt lost?" if same else "one variant in both pools?"
                found.append(f"tasks {one} and {other} answer with the same vectors: {why}")
        return found

    def compare(self, other: "Golden") -> list[str]:
        """What is wrong with `other` if these are right, and whose vectors a task returns instead."""
        return [fault for task, rows in other.vectors.items() if (fault := self._fault(task, rows))]

    def _fault(self, task: Task, rows: Vector) -> str | None:
        known = self.vectors.get(task)
        if known is None:
            return f"task {task}: the vectors from {self.source} do not include it, record them again"
        if known.shape != rows.shape:
            return f"task {task} has {rows.shape[1]} dimensions, not {known.shape[1]}"
        cosines = _cosines(known, rows)
        bad = f"{int((cosines < SAME).sum())} of {len(rows)} texts, least cosine {cosines.min():.3f}"
        # Of the texts that all tasks have.
        distances = {
            other: 1 - float(_cosines(theirs, rows)[: len(COMMON)].mean())
            for other, theirs in self.vectors.items()
            if theirs.shape == rows.shape
        }
        nearest = min(distances, key=lambda other: distances[other])
        far = distances[task] > max(NEARER * distances[nearest], 1 - TOO_SIMILAR)
        if far and distances[nearest] <= 1 - SAME:
            return f"task {task} answers with the vectors of {nearest} ({bad})"
        return f"task {task} answers with other vectors ({bad})" if cosines.min() < SAME else None

    def save(self, file: BinaryIO) -> None:
        """Write a .npz file, with the texts."""
        texts = {f"texts {task}": np.array(some) for task, some in self.texts.items()}
        vectors = {f"vectors {task}": rows for task, rows in self.vectors.items()}
        np.savez_compressed(file, allow_pickle=False, source=np.array(self.source), **texts, **vectors)

    @classmethod
    def load(cls, file: Path | BinaryIO) -> "Golden":
        """Read a .npz file. Raises `ValueError` for any other file, or for other texts."""
        try:
            with np.load(file, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            golden = cls(str(arrays["source"]))
        # numpy raises different errors for different kinds of files.
        except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(
                f"{file} holds no golden vectors ({error}): `triptych loadtest golden` records them"
            ) from None
        for task in TASKS:
            rows, texts = arrays.get(f"vectors {task}"), arrays.get(f"texts {task}")
            if rows is None or texts is None:
                continue
            if tuple(texts.tolist()) != GOLDEN_TEXTS[task]:
                raise ValueError(f"{file} was recorded with other texts: record it again")
            golden.vectors[task] = rows.astype(np.float32)
        return golden


def _cosines(ones: Vector, others: Vector) -> Vector:
    """The cosine of each row with the same row of the other."""
    cosines: Vector = (ones * others).sum(axis=1)
    return cosines


def _unit(vector: Vector) -> Vector:
    norm = float(np.linalg.norm(vector))
    return vector / norm if norm else vector
