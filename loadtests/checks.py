"""Is a reply what was asked for? Every one is looked at, while the load is on."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from loadtests.dialects import Reply
from loadtests.golden import SAME, Golden
from loadtests.request import Request, Task
from loadtests.results import WRONG

# Of a float32 vector that was normalised in bfloat16.
NORM_TOLERANCE = 1e-2
# A score is a float that was rounded on its way.
ORDER_TOLERANCE = 1e-6


@dataclass
class Checker:
    """Holds replies against their requests, and against `golden` vectors where a request has one.

    How many dimensions are right where none were asked for is known from the golden vectors; without them,
    and for multi-vectors, it is learned from the first good reply of each task. A vector whose cosine to its
    golden one is under `same` is wrong. `compared` counts the golden vectors that were looked at.
    """

    golden: Golden | None = None
    same: float = SAME
    compared: int = 0
    _dimensions: dict[tuple[Task, bool], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for task, rows in self.golden.vectors.items() if self.golden else ():
            self._dimensions[task, False] = rows.shape[1]

    def check(self, request: Request, reply: Reply) -> str | None:
        """None where all is well, else the kind of the failure."""
        wrong = self._ranking(request, reply) if request.kind == "rerank" else self._vectors(request, reply)
        if not wrong and reply.tokens == 0:
            wrong = "tokens"
        return f"{WRONG}{wrong}" if wrong else None

    def _ranking(self, request: Request, reply: Reply) -> str | None:
        if len(reply.scores) != len(request.inputs):
            return "count"
        if sorted(reply.indexes) != list(range(len(request.inputs))):
            return "order"
        if not np.isfinite(reply.scores).all():
            return "not finite"
        if any(
            later > earlier + ORDER_TOLERANCE
            for earlier, later in zip(reply.scores, reply.scores[1:], strict=False)
        ):
            return "order"
        return None

    def _vectors(self, request: Request, reply: Reply) -> str | None:
        vectors = reply.vectors
        if len(vectors) != len(request.inputs):
            return "count"
        if reply.indexes != list(range(len(vectors))):
            return "order"
        key = (request.task, request.multivector)
        wanted = request.dimensions or self._dimensions.get(key) or vectors[0].shape[-1]
        if any(vector.shape[-1] != wanted or vector.ndim != 1 + request.multivector for vector in vectors):
            return "dimension"
        rows = _rows(vectors)
        # Of all rows at once; a NaN in any makes its square one.
        squares = np.einsum("ij,ij->i", rows, rows)
        if not np.isfinite(squares).all():
            return "not finite"
        if np.abs(np.sqrt(squares) - 1).max() > NORM_TOLERANCE:
            return "norm"
        if self._differs(request, vectors):
            return "golden"
        if request.dimensions is None:
            self._dimensions[key] = wanted
        return None

    def _differs(self, request: Request, vectors: Sequence[NDArray[np.float32]]) -> bool:
        if self.golden is None:
            return False
        for place, number in request.golden.items():
            similarity = self.golden.similarity(request.task, number, vectors[place])
            if similarity is None:
                continue
            self.compared += 1
            if similarity < self.same:
                return True
        return False


def _rows(vectors: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """(all rows, dimensions) of vectors or of matrices with a row for each token."""
    if len(vectors) == 1:
        return np.atleast_2d(vectors[0])
    return np.vstack(vectors)
