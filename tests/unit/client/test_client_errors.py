"""Which reply raises which error, and what is retried. Nothing here sleeps."""

import copy
import pickle
from email.utils import formatdate
from typing import Any

import httpx
import pytest

from tests.unit.client.fakes import Call, Deployment, refusal, sync_call
from triptych.router.client import errors
from triptych.router.client.core import seconds_to_wait
from triptych.router.errors import FieldError, all_errors

# The client uses no wrong method and sends no Content-Encoding.
NEVER = {"METHOD_NOT_ALLOWED", "INPUT_ENCODING_UNSUPPORTED"}
STATUS = {error.code: error.status for error in all_errors() if error.code not in NEVER}
AGAIN = {429, 503, 504}


def attempt(call: Call, deployment: Deployment) -> errors.TriptychError | None:
    """The error of one call."""
    try:
        call(deployment, "embed", "a")
    except errors.TriptychError as error:
        return error
    return None


FAULT: FieldError = {"field": "body -> dimensions", "message": "too many", "type": "le", "input": 9999}


def test_every_code_has_an_exception() -> None:
    assert errors.BY_CODE.keys() == STATUS.keys()


@pytest.mark.parametrize("code", STATUS)
def test_each_error_raises_and_some_are_retried(call: Call, code: str) -> None:
    more = {"errors": [FAULT]} if STATUS[code] == 422 else {}
    replies = [refusal(STATUS[code], code, "what happened", **more) for _ in range(9)]
    deployment = Deployment(*replies, retries=3)
    error = attempt(call, deployment)
    assert type(error) is errors.BY_CODE[code]
    assert isinstance(error, errors.StatusError)
    assert (error.status, error.code, error.detail) == (STATUS[code], code, "what happened")
    assert error.request_id == "ab" * 16
    assert error.errors == more.get("errors", [])
    assert all(part in str(error) for part in ("what happened", code, "ab" * 16))
    assert len(deployment.requests) == (4 if STATUS[code] in AGAIN else 1)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, errors.InputError), (401, errors.AuthError), (418, errors.StatusError), (429, errors.Busy),
     (302, errors.StatusError), (500, errors.Internal), (503, errors.Unavailable), (504, errors.TimedOut)],
)  # fmt: skip
def test_foreign_reply_goes_by_status(status: int, kind: type[errors.StatusError]) -> None:
    page = httpx.Response(status, text="<html>from a proxy</html>", headers={"x-request-id": "of the proxy"})
    error = attempt(sync_call, Deployment(page, retries=0))
    assert type(error) is kind
    assert isinstance(error, errors.StatusError)
    assert (error.code, error.request_id) == ("", "of the proxy")
    assert "from a proxy" in error.detail


def test_redirect_names_its_target() -> None:
    page = httpx.Response(301, text="<html>moved", headers={"Location": "https://deployment/v1/embeddings"})
    error = attempt(sync_call, Deployment(page))
    assert isinstance(error, errors.StatusError)
    assert "https://deployment/v1/embeddings" in error.detail


def test_faults_of_another_shape_are_left_out() -> None:
    odd = httpx.Response(422, json={"detail": "no", "errors": ["odd", {"loc": 1}, FAULT]})
    error = attempt(sync_call, Deployment(odd))
    assert isinstance(error, errors.Invalid)
    assert error.errors == [FAULT]


def test_errors_survive_pickling() -> None:
    error = errors.Invalid(
        422, "no", code="VALIDATION_ERROR", request_id="ab", retry_after="7", errors=[FAULT]
    )
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is errors.Invalid
        assert (str(again), vars(again)) == (str(error), vars(error))


def test_transient_errors_are_retried(call: Call) -> None:
    script = [
        refusal(429, "QUEUE_FULL"),
        httpx.ConnectError("refused"),
        refusal(503, "SERVICE_UNAVAILABLE"),
        httpx.RemoteProtocolError("cut off"),
        refusal(504, "SERVICE_TIMEOUT"),
        httpx.Response(502, text="<html>from a proxy</html>"),
    ]
    deployment = Deployment(*script, retries=6)
    assert attempt(call, deployment) is None
    assert deployment.clock.slept == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0]
    assert len({request.content for request in deployment.requests}) == 1


def test_pauses_are_random_and_bounded() -> None:
    for chance, share in ((0.0, 0.5), (1.0, 1.0)):
        deployment = Deployment(*[refusal(503, "") for _ in range(20)], retries=8, max_wait=1e6)
        deployment.clock.luck = chance
        attempt(sync_call, deployment)
        assert deployment.clock.slept == [share * pause for pause in (0.5, 1, 2, 4, 8, 16, 20, 20)]


def test_retry_after_is_honoured(call: Call) -> None:
    deployment = Deployment()
    date = formatdate(deployment.clock.now + 7 + 30, usegmt=True)
    deployment.script = [
        refusal(429, "QUEUE_FULL", headers={"Retry-After": "7"}),
        refusal(503, "SERVICE_UNAVAILABLE", headers={"Retry-After": date}),
        refusal(503, "SERVICE_UNAVAILABLE", headers={"Retry-After": "soon"}),
    ]
    assert attempt(call, deployment) is None
    assert deployment.clock.slept == [7.0, 30.0, 0.5]


def test_retry_after_zero_is_no_reason_to_hurry() -> None:
    busy = Deployment(*[refusal(429, "QUEUE_FULL", headers={"Retry-After": "0"}) for _ in range(3)])
    assert attempt(sync_call, busy) is None
    assert busy.clock.slept == [0.5, 1.0, 2.0]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("0", 0), (" 12 ", 12), (formatdate(90, usegmt=True), 0), (formatdate(160, usegmt=True), 60),
     ("-3", None), ("1.5", None), ("", None), ("²", None),
     (f"Mon, 01 Jan 2024 00:00:00 +{'9' * 20}", None)],
)  # fmt: skip
def test_both_forms_of_retry_after(header: str, seconds: float | None) -> None:
    assert seconds_to_wait(header, now=100) == seconds


def test_retries_end_at_max_wait(call: Call) -> None:
    replies = [refusal(503, "SERVICE_UNAVAILABLE", headers={"Retry-After": "40"}) for _ in range(9)]
    busy = Deployment(*replies, retries=100, max_wait=100)
    error = attempt(call, busy)
    assert isinstance(error, errors.Unavailable)
    assert error.retry_after == "40"
    assert busy.clock.slept == [40.0, 40.0]


def test_lost_connection_names_the_address(call: Call) -> None:
    deployment = Deployment(*[httpx.ReadTimeout("") for _ in range(9)], retries=2)
    error = attempt(call, deployment)
    assert isinstance(error, errors.ConnectionLost)
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
    with pytest.raises(errors.ReplyInvalid):
        Deployment(httpx.Response(200, json=content)).client().ready()


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (refusal(401, "AUTH_MISSING_API_KEY"), errors.MissingKey),
        (httpx.Response(503, text="<html>no upstream"), errors.Unavailable),
        (httpx.Response(404, json={"ok": False}), errors.NotFound),
    ],
)
def test_ready_raises_what_another_reply_says(reply: httpx.Response, kind: type[errors.StatusError]) -> None:
    with pytest.raises(kind):
        Deployment(reply).client().ready()


def test_ready_is_not_retried() -> None:
    deployment = Deployment(httpx.ConnectError("refused"))
    with deployment.client() as client, pytest.raises(errors.ConnectionLost):
        client.ready()
    assert len(deployment.requests) == 1
