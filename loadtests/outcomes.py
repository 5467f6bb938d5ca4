"""What became of a request: the kinds of failure, and the checks of a reply.

The locustfile and `triptych loadtest` share it, though they send with different clients.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import orjson

from triptych.loadtests.checks import Checker
from triptych.loadtests.dialects import Dialect, Unreadable, Vector, clocks
from triptych.loadtests.results import WRONG, Clock
from triptych.loadtests.scenario import Request


class Outcome(NamedTuple):
    """`kind` is the kind of failure, "" if a request was answered well, and `detail` says more."""

    kind: str = ""
    detail: str = ""
    tokens: int = 0
    clocks: Mapping[Clock, float] = {}
    vectors: Sequence[Vector] = ()


def judged(
    dialect: Dialect, checker: Checker, request: Request, status: int, headers: Mapping[str, str], body: bytes
) -> Outcome:
    """The outcome of a request that was answered; `headers` ignore case."""
    if status != 200:
        return Outcome(f"HTTP {status}", refusal(headers, body))
    try:
        reply = dialect.decode(request, body)
    except Unreadable as unreadable:
        return Outcome(f"{WRONG}unreadable", str(unreadable))
    if wrong := checker.check(request, reply):
        return Outcome(wrong, f"in a request of task {request.flow.task}")
    return Outcome(tokens=reply.tokens or 0, clocks=clocks(headers), vectors=reply.vectors)


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
