"""Bodies that are not quite JSON, as known clients send them, or that have too many values."""

import contextlib
import json
import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.router.catalogs import parse_request
from triptych.router.api.bounds import LEAST_VALUES, check_values
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
        *(b"", b"{", b"input=a", b"\xff\xfe", b'{"input": "\xff"}'),
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
def test_broken_json_is_invalid(body: bytes) -> None:
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


MAX_ITEMS = 64
SIZE = 1 << 20
BOMBS = {
    "empty strings": b'"",',
    "numbers": b"1,",
    "objects": b"{},",
    "lists": b"[],",
    "depth": b"[",
    "strings that end in a backslash": b'"\\\\",',
    "strings of quotes": b'"\\"",',
    "items": b'{"text":""},',
    "members": b'{"":0,"":0},',
    "spaced": b' "" ,\n',
}


@pytest.mark.parametrize("unit", BOMBS.values(), ids=BOMBS)
@pytest.mark.parametrize("parse", [parse_request, parse_rerank])
def test_value_bomb_is_refused_cheaply(unit: bytes, parse: object) -> None:
    field = b'"input"' if parse is parse_request else b'"query": "a", "documents"'
    body = b"{" + field + b": [" + unit * (SIZE // len(unit)) + b'""]}'
    tracemalloc.start()
    try:
        with pytest.raises(Invalid) as caught:
            parse(body, max_items=MAX_ITEMS)  # type: ignore[operator]
        assert tracemalloc.get_traced_memory()[1] < 8 * SIZE
    finally:
        tracemalloc.stop()
    assert len(caught.value.errors) == 1


@pytest.mark.parametrize("wrong", [1, {}, None])
def test_long_list_is_one_error(wrong: object) -> None:
    body = json.dumps({"input": [wrong] * (MAX_ITEMS + 1), "query": "a", "documents": [wrong] * 65}).encode()
    for parse in (parse_request, parse_rerank):
        with pytest.raises(Invalid, match=f"at most {MAX_ITEMS}") as caught:
            parse(body, max_items=MAX_ITEMS)
        assert [fault["type"] for fault in caught.value.errors] == ["too_long"]


@pytest.mark.parametrize(
    "text", [",[{" * SIZE, '"' * SIZE, "\\" * SIZE, '\\"' * SIZE, '",' * SIZE, "\n," * SIZE]
)
def test_text_is_not_counted(text: str) -> None:
    body = json.dumps({"input": [text, {"text": text}]}).encode()
    assert parse_request(body, max_items=MAX_ITEMS).input == [text, TextItem(task=None, text=text)]


def test_largest_request_is_accepted() -> None:
    item = {"text": "a, b", "task": "code.query", "image": None, "url": None, "user": {"id": [1, 2, 3]}}
    check_values(json.dumps({"input": [item] * MAX_ITEMS, "model": "a"}).encode(), MAX_ITEMS)


_json = st.recursive(
    st.none() | st.integers() | st.text(alphabet='a,[{:"\\\n'),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(alphabet='a,"\\'), inner, max_size=5),
)


def _values(value: object) -> int:
    """Values, less the first of each list and object, which has its bracket."""
    if isinstance(value, list):
        return 1 + max(len(value) - 1, 0) + sum(map(_values, value))
    if isinstance(value, dict):
        return 1 + max(len(value) - 1, 0) + sum(map(_values, value.values()))
    return 0


@given(st.lists(_json, min_size=1, max_size=20))
@example([{"a": ",", "b": ",", "c": ",", "d": ","}] * 20)
def test_count_is_exact(values: list[object]) -> None:
    each = _values(values)
    times = LEAST_VALUES // each
    within = [values] * times
    if _values(within) <= LEAST_VALUES:
        check_values(json.dumps(within).encode(), 1)
    with pytest.raises(Invalid):
        check_values(json.dumps([values] * (times + 1)).encode(), 1)
