"""Sends one request over locust's HTTP client, checks the reply, and says what became of it.

The locustfile and `triptych loadtest` share it. Importing it imports locust, which patches sockets and
clocks of the whole process.
"""

import time
from dataclasses import dataclass, field
from typing import Any

import orjson
from geventhttpclient.client import HTTPClientPool
from locust.contrib.fasthttp import FastHttpSession, LocustBadStatusCode, insecure_ssl_context_factory
from locust.event import EventHook

from triptych.loadtests.checks import Checker
from triptych.loadtests.dialects import Dialect, Unreadable, clocks
from triptych.loadtests.request import Request
from triptych.loadtests.results import WRONG, Clock

# A reply of 2,048 dimensions fits, instead of ten reads.
BLOCK_BYTES = 1 << 16


@dataclass
class Outcome:
    """What became of a request.

    `kind` is the kind of failure, "" if it was answered well, and `detail` says more. `ended`: when the reply
    was in, by the monotonic clock.
    """

    kind: str = ""
    detail: str = ""
    tokens: int = 0
    clocks: dict[Clock, float] = field(default_factory=dict)
    ended: float = 0.0


def connection_pool(size: int, timeout: float, *, verify: bool) -> HTTPClientPool:
    """Connections that several sessions can share, at most `size` to each server."""
    return HTTPClientPool(
        concurrency=size,
        connection_timeout=timeout,
        network_timeout=timeout,
        block_size=BLOCK_BYTES,
        insecure=not verify,
        # `insecure` alone skips only the check of the host's name.
        ssl_context_factory=None if verify else insecure_ssl_context_factory,
    )


def new_session(pool: HTTPClientPool) -> FastHttpSession:
    """A session without a locust user, for loads that locust's runner does not spawn."""
    events: Any = EventHook
    return FastHttpSession(None, events(), None, client_pool=pool, max_retries=0)


def exchange(
    session: FastHttpSession, dialect: Dialect, checker: Checker, request: Request, name: str
) -> Outcome:
    """Send `request` and check the reply. locust counts it under `name`, and failures by their kind."""
    call = dialect.encode(request)
    # Bytes are sent unchanged, though the type hints do not say so.
    body: Any = call.body
    with session.request(
        "POST", call.url, name=name, data=body, headers=call.headers, catch_response=True
    ) as response:
        ended = time.monotonic()
        outcome = _judge(dialect, checker, request, response, response.request_meta["exception"])
        if outcome.kind:
            response.failure(outcome.kind)
        else:
            response.success()
    outcome.ended = ended
    return outcome


def _judge(
    dialect: Dialect, checker: Checker, request: Request, response: Any, error: BaseException | None
) -> Outcome:
    if error is not None and not isinstance(error, LocustBadStatusCode):
        return _no_reply(error)
    body = response.content or b""
    if response.status_code != 200:
        return Outcome(f"HTTP {response.status_code}", _message(body))
    try:
        reply = dialect.decode(request, body)
    except Unreadable as unreadable:
        return Outcome(f"{WRONG}unreadable", str(unreadable))
    if wrong := checker.check(request, reply):
        return Outcome(wrong, f"in a request of task {request.task}")
    return Outcome(tokens=reply.tokens or 0, clocks=clocks(response.headers))


def _no_reply(error: BaseException) -> Outcome:
    # geventhttpclient wraps errors that it would have retried, although retries are off.
    error = getattr(error, "original", None) or error
    match error:
        case TimeoutError():
            return Outcome("timeout", str(error))
        case ConnectionRefusedError():
            return Outcome("connection refused", str(error))
        case _:
            return Outcome("connection lost", f"{type(error).__name__}: {error}")


def _message(body: bytes) -> str:
    """The message of an error body, shortened."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = None
    for name in ("detail", "message", "error"):
        if isinstance(document, dict) and document.get(name):
            return str(document[name])[:200]
    return body.decode(errors="replace")[:200]
