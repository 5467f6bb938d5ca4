"""The finished batches on disk: first the vectors, then the line in the journal."""

from typing import Self

import numpy as np

from triptych.router.client.bulk.job import Job
from triptych.router.client.bulk.journal import Failures, Journal
from triptych.router.client.bulk.matrix import Matrix
from triptych.router.client.replies import Floats


class Store:
    """Stores the batches of one run, in any order. Not thread-safe."""

    def __init__(self, job: Job, rows: int, journal: Journal) -> None:
        self._job, self._rows, self._journal = job, rows, journal
        # The first vector decides the width. A file without vectors in the journal is left from another run.
        has_vectors = job.count(journal.done, rows) > len(journal.failures)
        self._matrix = Matrix.open(job.partial) if has_vectors else None

    def keep(self, batch: int, vectors: Floats | None, failures: Failures) -> None:
        """Write a batch to disk, then to the journal."""
        if vectors is not None:
            if self._matrix is None:
                dtype = np.dtype(self._job.dtype).newbyteorder("<")
                self._matrix = Matrix.create(self._job.partial, self._rows, vectors.shape[1], dtype)
            self._matrix.write(batch * self._job.batch, vectors)
        self._journal.add(batch, failures)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._matrix is not None:
            self._matrix.close()
