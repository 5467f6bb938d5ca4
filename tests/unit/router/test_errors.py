"""Every error has one status, one code and one shape, as in API.md."""

import inspect
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triptych.router import errors
from triptych.router.api.app import error_reply
from triptych.router.errors import (
    Invalid,
    InvalidKey,
    QueueFull,
    RouterError,
    Unavailable,
    all_errors,
    shorten,
    with_jitter,
)

# The first table of errors in docs/API.md. Another one has those of `serving/protocol.py`.
TABLE = (Path(__file__).parents[3] / "docs" / "API.md").read_text().split("Before a request is complete")[0]
STATUS = {code: int(status) for status, code in re.findall(r"(?m)^\| (\d{3}) \| `(\w+)` \|", TABLE)}
REQUEST_ID = b"0123456789abcdef" * 2


def test_errors_are_those_of_the_api() -> None:
    assert {kind.code: kind.status for kind in all_errors()} == STATUS
    assert len(all_errors()) == len(STATUS)


def test_drawn_tree_names_every_error() -> None:
    drawn = inspect.getdoc(errors) or ""
    assert all(f"── {kind.__name__} " in drawn for kind in all_errors())


WRONG = Invalid.field("body -> dimensions", "is wrong", "int_type", "many")


@pytest.mark.parametrize(
    ("error", "openai"),
    [
        (WRONG, "invalid_request_error"),
        (InvalidKey("who?"), "authentication_error"),
        (QueueFull("full"), "rate_limit_error"),
        (Unavailable("away"), "server_error"),
    ],
)
def test_errors_have_one_shape(error: RouterError, openai: str) -> None:
    reply = error_reply(error, REQUEST_ID)
    assert reply.status == error.status
    assert json.loads(reply.body) == {
        "detail": error.detail,
        "code": error.code,
        "request_id": REQUEST_ID.decode(),
        "error": {"message": error.detail, "type": openai, "code": error.code},
        **({"errors": WRONG.errors} if error is WRONG else {}),
    }


@pytest.mark.parametrize(
    ("value", "short"),
    [
        ("x" * 100, "x" * 100),
        ("x" * 101, "x" * 100 + "… (101 characters)"),
        ([1, 2, 3], "a list of 3"),
        ({"b": 1, "a": 2}, "an object with a, b"),
        ({}, "an object with no fields"),
        (1.5, 1.5),
        (2**53 - 1, 2**53 - 1),
        (2**53, str(2**53)),
        (10**200, "1" + "0" * 99),
    ],
)
def test_long_values_are_shortened(value: object, short: object) -> None:
    assert shorten(value) == short


def test_any_value_can_be_reported() -> None:
    """JSON knows integers and floats that the encoder does not."""
    for value in (10**400, float("nan"), float("inf"), {"k" * 10**4: 1}, [[]] * 10**4, "\0\x7f"):
        error_reply(Invalid.field("body -> x", "is wrong", "t", value), REQUEST_ID)


@given(st.integers(1, 3600), st.floats(0, 1, exclude_max=True))
def test_jitter_only_adds(seconds: int, chance: float) -> None:
    assert seconds <= with_jitter(seconds, chance) <= 1.5 * seconds + 1


@pytest.mark.parametrize("seconds", [1, 2, 10])
def test_jitter_spreads_clients(seconds: int) -> None:
    assert len({with_jitter(seconds, chance / 100) for chance in range(100)}) > seconds / 2
