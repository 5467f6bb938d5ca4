"""Large bodies: read as small ones are, in pieces, and in a thread."""

import asyncio
import json
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.fakes.router import workers_setting
from tests.fakes.worker import FakeWorker
from tests.unit.router.apps import Workers, client_of_app
from tests.unit.router.catalogs import parse_request
from triptych.router.api import large_json
from triptych.router.api.body import LARGE_BYTES
from triptych.router.api.large_json import PIECE_BYTES, read, read_large
from triptych.router.api.work import Work
from triptych.router.errors import Invalid
from triptych.router.http import Message, Request
from triptych.router.media.loader import MediaLoader
from triptych.router.memory import Budget
from triptych.router.pool.fleet import Fleet
from triptych.router.settings import RouterSettings

MOST = 60 << 20
MANY = 10_000

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(
    ["\\" * 9, '"' * 9, "漢字" * 9, "\U0001f600" * 9, '\\"' * 9, "long string 0"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=10,
)


def read_in_tiny_pieces(body: bytes) -> Any:
    return read_large(body, MANY, piece_bytes=7, long_bytes=5)


@given(values, st.booleans())
def test_large_json_is_read_as_json(value: Any, ascii_only: bool) -> None:
    found = read_in_tiny_pieces(json.dumps(value, ensure_ascii=ascii_only).encode())
    assert json.dumps(without_keys(found)) == json.dumps(without_keys(value))


def without_keys(value: Any) -> Any:
    """Long keys, which no field has, are not read."""
    match value:
        case list():
            return [without_keys(part) for part in value]
        case dict():
            return [without_keys(part) for part in value.values()]
    return value


json_like = st.text(st.sampled_from('\\"ud83dDe00 n{}[]:,a漢'), max_size=40).map(str.encode)


@given(json_like | st.binary(max_size=40).map(b'["'.__add__))
@example(rb'"%b"' % (rb"\ud83d\ude00" * 5))
@example(rb'"%b"' % (rb"\\ud83d\ude00" * 5))
@example(b'"aaaaaaaaaaaaa\\')
def test_any_bytes_are_read_alike_or_refused(data: bytes) -> None:
    assert outcome(lambda: read_in_tiny_pieces(data)) == outcome(lambda: read(data))


def outcome(parse: Callable[[], Any]) -> Any:
    try:
        return without_keys(parse())
    except ValueError:
        return "refused"


def padded(value: str, size: int = LARGE_BYTES) -> bytes:
    return b'{"input": %b, "user": "%b"}' % (value.encode(), b"x" * size)


@pytest.mark.parametrize(
    "value", ['"a"', '["a", {"text": "b"}]', "5", '[{"image": 5}]', '[["a"]]', r'"\ud83d"', '{"pdf": 1}', "["]
)
def test_size_does_not_change_the_result(value: str) -> None:
    def parsed(body: bytes) -> Any:
        try:
            return parse_request(body).input
        except Invalid as error:
            return [(fault["field"], fault["type"]) for fault in error.errors]

    assert parsed(padded(value)) == parsed(padded(value, size=1))


def string(unit: bytes) -> bytes:
    return b'{"input": "%b"}' % (unit * (MOST // len(unit)))


BODIES: dict[str, Callable[[], bytes]] = {
    "one text": lambda: string(b"a"),
    "unicode escapes": lambda: string(rb"\u00e9"),
    "lone surrogates": lambda: string(rb"\ud800"),
    "escaped quotes": lambda: string(rb"\",\""),
    "wrong items": lambda: b'{"input": [%b]}' % b",".join([b'{"%b": 1}' % (b"k" * (MOST // 500))] * 500),
    "spaces": lambda: b'{"input": "a"%b}' % (b" " * MOST),
    "quotes": lambda: b'{"input": [%b]}' % (b'"",' * (MOST // 3)),
    "brackets": lambda: b"[" * MOST,
}


@pytest.mark.parametrize("kind", BODIES)
def test_largest_bodies_are_decoded_in_pieces(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece holds the interpreter, and with it the event loop."""
    sizes = [0]

    def read_piece(data: bytes) -> Any:
        sizes.append(len(data))
        return read(data)

    monkeypatch.setattr(large_json, "read", read_piece)
    with suppress(Invalid):
        read_large(BODIES[kind](), max_items=512)
    assert max(sizes) <= PIECE_BYTES + len('"\\udead"')


async def test_fleet_is_read_by_the_loop_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = set()
    monkeypatch.setattr(Fleet, "served", property(lambda _: threads.add(threading.get_ident()) or {}))
    async with client_of_app(Workers()) as client:
        for path in ("embeddings", "rerank"):
            await client.post(f"/v1/{path}", content=padded('"a"'))
    assert threads == {threading.get_ident()}


async def test_keys_take_turns_at_the_parser() -> None:
    """Key a sends three bodies before key b sends one."""
    body = b" " * (LARGE_BYTES + 1)
    settings = RouterSettings(workers=workers_setting([FakeWorker(port=1)]))  # type: ignore[arg-type]
    fleet = Fleet(settings)
    order: list[str] = []

    async def read_one(key: str) -> None:
        async def receive() -> Message:
            return {"type": "http.request", "body": body}

        request = Request({"method": "POST", "path": "/", "headers": []}, receive, Budget(1 << 30))
        request.key = key
        work = Work(request, fleet, MediaLoader(settings, fleet.metrics), settings)
        await work.read(lambda *_: order.append(key))

    await asyncio.gather(*map(read_one, "aaab"))
    assert order == ["a", "a", "b", "a"]
