"""Which reply raises which error, and what is retried. Nothing here sleeps."""

import asyncio
import copy
import pickle
from email.utils import formatdate
from typing import Any

import httpx
import pytest

from tests.unit.client.fakes import Deployment, FakeClock, refusal
from triptych.router.client.core import seconds_to_wait
from triptych.router.client.errors import (
    BY_CODE,
    AuthError,
    Busy,
    ConnectionLost,
    InputError,
    Internal,
    Invalid,
    MissingKey,
    NotFound,
    ReplyInvalid,
    StatusError,
    TimedOut,
    TriptychError,
    Unavailable,
)
from triptych.router.errors import FieldError, all_errors

# The client uses no wrong method and sends no Content-Encoding.
NEVER = {"METHOD_NOT_ALLOWED", "INPUT_ENCODING_UNSUPPORTED"}
STATUS = {error.code: error.status for error in all_errors() if error.code not in NEVER}
AGAIN = {429, 503, 504}


def attempt(deployment: Deployment, kind: str, clock: FakeClock, **options: Any) -> TriptychError | None:
    """The error of one call by one of the clients."""

    async def run() -> None:
        async with deployment.async_client(clock, **options) as client:
            await client.embed("a")

    try:
        if kind == "async":
            asyncio.run(run())
        else:
            with deployment.client(clock, **options) as client:
                client.embed("a")
    except TriptychError as error:
        return error
    return None


FAULT: FieldError = {"field": "body -> dimensions", "message": "too many", "type": "le", "input": 9999}
kinds = pytest.mark.parametrize("kind", ["sync", "async"])


def test_every_code_has_an_exception() -> None:
    assert BY_CODE.keys() == STATUS.keys()


@kinds
@pytest.mark.parametrize("code", STATUS)
def test_each_error_raises_and_some_are_retried(kind: str, code: str) -> None:
    more = {"errors": [FAULT]} if STATUS[code] == 422 else {}
    deployment = Deployment(*(refusal(STATUS[code], code, "what happened", **more) for _ in range(9)))
    error = attempt(deployment, kind, FakeClock(), retries=3)
    assert type(error) is BY_CODE[code]
    assert isinstance(error, StatusError)
    assert (error.status, error.code, error.detail) == (STATUS[code], code, "what happened")
    assert error.request_id == "ab" * 16
    assert error.errors == more.get("errors", [])
    assert all(part in str(error) for part in ("what happened", code, "ab" * 16))
    assert len(deployment.requests) == (4 if STATUS[code] in AGAIN else 1)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, InputError), (401, AuthError), (418, StatusError), (429, Busy), (302, StatusError),
     (500, Internal), (502, StatusError), (503, Unavailable), (504, TimedOut)],
)  # fmt: skip
def test_foreign_reply_goes_by_status(status: int, kind: type[StatusError]) -> None:
    page = httpx.Response(status, text="<html>from a proxy</html>", headers={"x-request-id": "of the proxy"})
    error = attempt(Deployment(page), "sync", FakeClock(), retries=0)
    assert type(error) is kind
    assert isinstance(error, StatusError)
    assert (error.code, error.request_id) == ("", "of the proxy")
    assert "from a proxy" in error.detail


def test_redirect_names_its_target() -> None:
    page = httpx.Response(301, text="<html>moved", headers={"Location": "https://deployment/v1/embeddings"})
    error = attempt(Deployment(page), "sync", FakeClock())
    assert isinstance(error, StatusError)
    assert "https://deployment/v1/embeddings" in error.detail


def test_faults_of_another_shape_are_left_out() -> None:
    odd = httpx.Response(422, json={"detail": "no", "errors": ["odd", {"loc": 1}, FAULT]})
    error = attempt(Deployment(odd), "sync", FakeClock())
    assert isinstance(error, Invalid)
    assert error.errors == [FAULT]


def test_errors_survive_pickling() -> None:
    error = Invalid(422, "no", code="VALIDATION_ERROR", request_id="ab", retry_after="7", errors=[FAULT])
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is Invalid
        assert (str(again), vars(again)) == (str(error), vars(error))


@kinds
def test_transient_errors_are_retried(kind: str) -> None:
    script = [
        refusal(429, "QUEUE_FULL"),
        httpx.ConnectError("refused"),
        refusal(503, "SERVICE_UNAVAILABLE"),
        httpx.RemoteProtocolError("cut off"),
        refusal(504, "SERVICE_TIMEOUT"),
        httpx.Response(502, text="<html>from a proxy</html>"),
    ]
    deployment, clock = Deployment(*script), FakeClock(chance=1.0)
    assert attempt(deployment, kind, clock, retries=6) is None
    assert clock.slept == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0]
    assert len({request.content for request in deployment.requests}) == 1


def test_pauses_are_random_and_bounded() -> None:
    for chance, share in ((0.0, 0.5), (1.0, 1.0)):
        clock = FakeClock(chance)
        attempt(Deployment(*[refusal(503, "") for _ in range(20)]), "sync", clock, retries=8, max_wait=1e6)
        assert clock.slept == [share * pause for pause in (0.5, 1, 2, 4, 8, 16, 20, 20)]


@kinds
def test_retry_after_is_honoured(kind: str) -> None:
    clock = FakeClock()
    date = formatdate(clock.now + 7 + 30, usegmt=True)
    script = [
        refusal(429, "QUEUE_FULL", headers={"Retry-After": "7"}),
        refusal(503, "SERVICE_UNAVAILABLE", headers={"Retry-After": date}),
        refusal(503, "SERVICE_UNAVAILABLE", headers={"Retry-After": "soon"}),
    ]
    assert attempt(Deployment(*script), kind, clock) is None
    assert clock.slept == [7.0, 30.0, 0.5]


def test_retry_after_zero_is_no_reason_to_hurry() -> None:
    clock = FakeClock()
    busy = Deployment(*[refusal(429, "QUEUE_FULL", headers={"Retry-After": "0"}) for _ in range(3)])
    assert attempt(busy, "sync", clock) is None
    assert clock.slept == [0.5, 1.0, 2.0]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("0", 0), (" 12 ", 12), (formatdate(90, usegmt=True), 0), (formatdate(160, usegmt=True), 60),
     ("-3", None), ("1.5", None), ("", None), ("²", None),
     (f"Mon, 01 Jan 2024 00:00:00 +{'9' * 20}", None)],
)  # fmt: skip
def test_both_forms_of_retry_after(header: str, seconds: float | None) -> None:
    assert seconds_to_wait(header, now=100) == seconds


@kinds
def test_retries_end_at_max_wait(kind: str) -> None:
    clock = FakeClock()
    busy = Deployment(*[refusal(503, "SERVICE_UNAVAILABLE", headers={"Retry-After": "40"}) for _ in range(9)])
    error = attempt(busy, kind, clock, retries=100, max_wait=100)
    assert isinstance(error, Unavailable)
    assert error.retry_after == "40"
    assert clock.slept == [40.0, 40.0]


@kinds
def test_lost_connection_names_the_address(kind: str) -> None:
    deployment = Deployment(*[httpx.ReadTimeout("") for _ in range(9)])
    error = attempt(deployment, kind, FakeClock(), retries=2)
    assert isinstance(error, ConnectionLost)
    assert "http://deployment/v1/embeddings: ReadTimeout" in str(error)
    assert len(deployment.requests) == 3


READY = {"ready": True, "pools": {}}


@pytest.mark.parametrize(
    "content",
    [
        "ok",
        None,
        {**READY, "pools": [[1, 2]]},
        {**READY, "vector_spaces": None},
        {**READY, "vector_spaces": [1]},
        {**READY, "vector_spaces": {"code": 7}},
        {**READY, "vector_spaces": {"code": [7]}},
    ],
)
def test_invalid_readiness_is_refused(content: Any) -> None:
    with pytest.raises(ReplyInvalid):
        Deployment(httpx.Response(200, json=content)).client().ready()


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (refusal(401, "AUTH_MISSING_API_KEY"), MissingKey),
        (httpx.Response(503, text="<html>no upstream"), Unavailable),
        (httpx.Response(404, json={"ok": False}), NotFound),
    ],
)
def test_ready_raises_what_another_reply_says(reply: httpx.Response, kind: type[StatusError]) -> None:
    with pytest.raises(kind):
        Deployment(reply).client().ready()


def test_ready_is_not_retried() -> None:
    deployment = Deployment(httpx.ConnectError("refused"))
    with deployment.client(FakeClock()) as client, pytest.raises(ConnectionLost):
        client.ready()
    assert len(deployment.requests) == 1
