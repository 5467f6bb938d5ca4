"""Bodies that are not quite JSON, as known clients send them."""

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.router.catalogs import parse_request
from triptych.router.api.rerank import parse_rerank
from triptych.router.api.schema import TextItem
from triptych.router.errors import Invalid

LONE = [
    (rb"half \ud83d emoji", "half \ufffd emoji"),
    (rb"\ud83d", "\ufffd"),
    (rb"cut at the end \uD83D", "cut at the end \ufffd"),
    (rb"low \ude00 alone", "low \ufffd alone"),
    (rb"\ud83d\ud83d\ude00\ude00", "\ufffd\U0001f600\ufffd"),
    (rb"\ud83d\n\\ud83d", "\ufffd\n\\ud83d"),
    (rb"\\\ud83d\u0041", "\\\ufffdA"),
]


@pytest.mark.parametrize(("sent", "read"), LONE)
def test_lone_surrogate_is_replaced(sent: bytes, read: str) -> None:
    body = b'{"input": ["other", "%s", {"text": "%s"}], "\\ud83d": NaN}' % (sent, sent)
    assert parse_request(body).input == ["other", read, TextItem(task=None, text=read)]
    ranking = parse_rerank(b'{"query": "%s", "documents": ["%s"]}' % (sent, sent), 10)
    assert (ranking.query, ranking.documents) == (read, [read])


@pytest.mark.parametrize(
    ("sent", "read"),
    [(rb"\ud83d\ude00", "\U0001f600"), (rb"\\ud83d", r"\ud83d"), ("\U0001f600".encode(), "\U0001f600")],
)
def test_valid_escapes_are_kept(sent: bytes, read: str) -> None:
    assert parse_request(b'{"input": "%s"}' % sent).input == read
    # Also next to a lone surrogate.
    assert parse_request(b'{"input": "%s", "user": "\\ud83d"}' % sent).input == read


@pytest.mark.parametrize(
    "body",
    [
        rb'{"input": "\ud83d"',
        rb'{"input": "\ud83"}',
        rb'{"input": "\ud83d\x"}',
        b'{"input": "\\ud83d \xff"}',
        b'{"input": "\xed\xa0\xbd"}',
        b'{"input": "\\ud83d", "x": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b'{"input": "\\ud83d", "x": ' + b"1" * 10_000 + b"x}",
    ],
    ids=lambda body: str(body[:30]),
)
def test_broken_json_stays_invalid(body: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        parse_request(body)
    assert [(error["field"], error["type"]) for error in caught.value.errors] == [("body", "json_invalid")]


@given(st.binary(max_size=300))
@example(b"null")
@example(b'{"input": "a", "input": 5}')
@example(b'{"input": NaN}')
@example(b'{"input": "a", "dimensions": 1e400}')
@example(b'{"input": "a", "dimensions": ' + b"9" * 5000 + b"}")
@example(b'{"input": ' + b"[" * 5000 + b"]" * 5000 + b"}")
@example(b'{"input": ' + b'{"text":' * 500 + b"1" + b"}" * 500 + b"}")
def test_any_bytes_are_read_or_invalid(body: bytes) -> None:
    with contextlib.suppress(Invalid):
        parse_request(body)


def test_wrong_field_is_still_named() -> None:
    with pytest.raises(Invalid) as caught:
        parse_request(rb'{"input": ["\ud83d", {"image": 5}]}')
    assert [error["field"] for error in caught.value.errors] == ["body -> input -> 1 -> image"]


def test_byte_order_mark_is_skipped() -> None:
    bom = b"\xef\xbb\xbf"
    assert parse_request(bom + b'{"input": "a"}').input == "a"
    assert parse_request(bom + rb'{"input": "\ud83d"}').input == "\ufffd"
    assert parse_rerank(bom + b'{"query": "a", "documents": ["b"]}', 10).query == "a"
    for body in (bom, bom + bom + b'{"input": "a"}'):
        with pytest.raises(Invalid):
            parse_request(body)
