"""Checks every reply during the load: is it what was asked for?"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from triptych.loadtests.dialects import Reply
from triptych.loadtests.golden import SAME, Golden
from triptych.loadtests.results import WRONG
from triptych.loadtests.scenario import Request, Task

# For a float32 vector that was normalised in bfloat16.
NORM_TOLERANCE = 1e-2
# For scores that were rounded.
ORDER_TOLERANCE = 1e-6


@dataclass
class Checker:
    """Checks replies against their requests, and against `golden` vectors where a request names some.

    A request without `dimensions` gets those of the golden vectors, or of the first good reply for its task.
    `compared` counts the vectors compared.
    """

    golden: Golden | None = None
    compared: int = 0
    _dimensions: dict[tuple[Task, bool], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for task, rows in self.golden.vectors.items() if self.golden else ():
            self._dimensions[task, False] = rows.shape[1]

    def check(self, request: Request, reply: Reply) -> str | None:
        """The kind of failure, such as "wrong: count"; None if the reply is right."""
        wrong = _ranking(request, reply) if request.flow.kind == "rerank" else self._vectors(request, reply)
        if not wrong and reply.tokens == 0:
            wrong = "tokens"
        return f"{WRONG}{wrong}" if wrong else None

    def _vectors(self, request: Request, reply: Reply) -> str | None:
        flow, vectors = request.flow, reply.vectors
        if len(vectors) != len(request.inputs):
            return "count"
        if reply.indexes != list(range(len(vectors))):
            return "order"
        key = (flow.task, flow.multivector)
        wanted = flow.dimensions or self._dimensions.get(key) or vectors[0].shape[-1]
        if any(vector.shape[-1] != wanted or vector.ndim != 1 + flow.multivector for vector in vectors):
            return "dimension"
        rows = np.atleast_2d(vectors[0]) if len(vectors) == 1 else np.vstack(vectors)
        # All rows at once. A NaN makes its row's sum NaN.
        squares = np.einsum("ij,ij->i", rows, rows)
        if not np.isfinite(squares).all():
            return "not finite"
        if np.abs(np.sqrt(squares) - 1).max() > NORM_TOLERANCE:
            return "norm"
        if self._differs(request, vectors):
            return "golden"
        if flow.dimensions is None:
            self._dimensions[key] = wanted
        return None

    def _differs(self, request: Request, vectors: Sequence[NDArray[np.float32]]) -> bool:
        for place, number in request.golden.items() if self.golden else ():
            assert self.golden is not None
            similarity = self.golden.similarity(request.flow.task, number, vectors[place])
            if similarity is None:
                continue
            self.compared += 1
            if similarity < SAME:
                return True
        return False


def _ranking(request: Request, reply: Reply) -> str | None:
    if len(reply.scores) != len(request.inputs):
        return "count"
    if sorted(reply.indexes) != list(range(len(request.inputs))):
        return "order"
    if not np.isfinite(reply.scores).all():
        return "not finite"
    if any(later > earlier + ORDER_TOLERANCE for earlier, later in pairwise(reply.scores)):
        return "order"
    return None
