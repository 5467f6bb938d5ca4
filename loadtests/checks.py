"""What became of a request, whichever client sent it: the kinds of failure, and the checks of every reply."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import orjson

from triptych.loadtests.dialects import Dialect, Reply, Unreadable, Vector, clocks
from triptych.loadtests.golden import SAME, Golden
from triptych.loadtests.results import WRONG, Clock
from triptych.loadtests.scenario import Request, Task

# For a float32 vector that was normalised in bfloat16.
NORM_TOLERANCE = 1e-2
# For scores that were rounded.
ORDER_TOLERANCE = 1e-6


class Outcome(NamedTuple):
    """`kind` is the kind of failure, "" if a request was answered well, and `detail` says more."""

    kind: str = ""
    detail: str = ""
    tokens: int = 0
    clocks: Mapping[Clock, float] = {}
    vectors: Sequence[Vector] = ()


class Checker:
    """Checks replies in `dialect`, and against `golden` vectors where a request names some.

    A request without `dimensions` gets those of the golden vectors, or of the first good reply for its task.
    `compared` counts the vectors compared.
    """

    def __init__(self, dialect: Dialect, golden: Golden | None = None) -> None:
        self.dialect, self._golden = dialect, golden or Golden("nowhere")
        self.compared = 0
        self._dimensions: dict[tuple[Task, bool], int] = {
            (task, False): rows.shape[1] for task, rows in self._golden.vectors.items()
        }

    def judge(self, request: Request, status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
        """The outcome of a request that was answered; `headers` ignore case."""
        if status != 200:
            return Outcome(f"HTTP {status}", refusal(headers, body))
        try:
            reply = self.dialect.decode(request, body)
        except Unreadable as unreadable:
            return Outcome(f"{WRONG}unreadable", str(unreadable))
        if wrong := self.fault(request, reply):
            return Outcome(f"{WRONG}{wrong}", f"in a request of task {request.flow.task}")
        return Outcome(tokens=reply.tokens or 0, clocks=clocks(headers), vectors=reply.vectors)

    def fault(self, request: Request, reply: Reply) -> str | None:
        """What is wrong with a reply, such as "count"; None if it is right."""
        wrong = _ranking(request, reply) if request.flow.kind == "rerank" else self._vectors(request, reply)
        return wrong or ("tokens" if reply.tokens == 0 else None)

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
        for place, number in request.golden.items():
            similarity = self._golden.similarity(flow.task, number, vectors[place])
            self.compared += similarity is not None
            if similarity is not None and similarity < SAME:
                return "golden"
        if flow.dimensions is None:
            self._dimensions[key] = wanted
        return None


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


def unanswered(error: BaseException) -> Outcome:
    """The outcome of a request without a reply."""
    # Clients wrap the error of the network.
    for name in ("original", "os_error"):
        error = getattr(error, name, None) or error
    match error:
        case TimeoutError():
            return Outcome("timeout", str(error))
        case ConnectionRefusedError():
            return Outcome("connection refused", str(error))
        case _:
            return Outcome("connection lost", f"{type(error).__name__}: {error}")


def refusal(headers: Mapping[str, str], body: bytes) -> str:
    """Where a redirect points to, otherwise the message of an error body, shortened."""
    if location := headers.get("location"):
        # Headers need not be UTF-8, and aiohttp leaves surrogates, which JSON cannot hold.
        return f"redirects to {location[:200]}".encode(errors="replace").decode()
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = None
    for name in ("detail", "message", "error"):
        if isinstance(document, dict) and document.get(name):
            return str(document[name])[:200]
    return body.decode(errors="replace")[:200]
