"""A body with too many values is refused before it is parsed."""

import json
import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.router.catalogs import parse_request
from triptych.router.api.bounds import LEAST_VALUES, VALUES_PER_ITEM, check_values
from triptych.router.api.rerank import parse_rerank
from triptych.router.api.schema import TextItem
from triptych.router.errors import Invalid

MAX_ITEMS = 64
MANY = VALUES_PER_ITEM * MAX_ITEMS
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
