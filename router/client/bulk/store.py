"""What is done so far, on disk: vectors first, then the journal's word for it."""

from types import TracebackType
from typing import Self

import numpy as np

from router.client.bulk.job import Job
from router.client.bulk.journal import Failures, Journal
from router.client.bulk.matrix import Array, Matrix
from router.client.bulk.problems import Refused
from router.client.replies import Floats

# The same text in two batches of one model stays far above this, two models far below.
SAME_COSINE = 0.98


class Store:
    """Takes the batches of one run, in any order. Not for two threads at a time."""

    def __init__(self, job: Job, rows: int, journal: Journal) -> None:
        self._job, self._rows, self._journal = job, rows, journal
        # Before the first vector nobody knows how wide it is; one left by a run without a journal is stale.
        self._matrix = Matrix.open(job.partial) if self.has_vectors else None

    @property
    def has_vectors(self) -> bool:
        """Whether any row of the batches done has a vector."""
        return self._job.count(self._journal.done, self._rows) > len(self._journal.failures)

    def keep(self, batch: int, vectors: Floats | None, failures: Failures) -> None:
        """Put a batch on disk, then into the journal."""
        if vectors is not None:
            if self._matrix is None:
                dtype = np.dtype(self._job.dtype).newbyteorder("<")
                self._matrix = Matrix.create(self._job.partial, self._rows, vectors.shape[1], dtype)
            self._matrix.write(batch * self._job.batch, vectors)
        self._journal.add(batch, failures)

    def compare(self, row: int, vector: Array) -> None:
        """Raise `Refused` unless `vector` is, but for rounding, what is there for a row that is done."""
        assert self._matrix is not None, "a row without a matrix was compared. This is a bug."
        now = vector.astype(np.float64)
        then = self._matrix.read(row, row + 1)[0].astype(np.float64)
        alike = 0.0
        if now.shape == then.shape:
            alike = float(now @ then / (np.linalg.norm(now) * np.linalg.norm(then) or 1.0))
        if alike < SAME_COSINE:
            raise Refused(
                f"the server now gives another vector for row {row} than it did before (cosine {alike:.3f}), "
                f"so it serves other weights. Have it serve what it did, or {self._job.start_over}"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._matrix is not None:
            self._matrix.close()
