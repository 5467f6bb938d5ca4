"""The wire contract between router and worker."""

import msgspec
import pytest

from triptych.workers.shared import contract
from triptych.workers.shared.contract import Document, EncodeRequest, Image, Item, Text

QUERY, DOCUMENT = Text("a query", "query"), Text("a document", "passage")


def test_batch_survives_the_wire() -> None:
    batch = EncodeRequest([Item(DOCUMENT, against=0), Item(DOCUMENT)], priority=1, queries=[QUERY])
    assert contract.decode_request(contract.encode_request(batch)) == batch


@pytest.mark.parametrize("index", [-1, 1])
def test_unknown_query_index_is_refused(index: int) -> None:
    wire = {
        "items": [{"content": {"type": "text", "text": "a", "role": "passage"}, "against": index}],
        "queries": [{"type": "text", "text": "q", "role": "query"}],
    }
    with pytest.raises(msgspec.ValidationError, match="against"):
        contract.decode_request(msgspec.msgpack.encode(wire))


def test_requests_of_the_first_version_are_understood() -> None:
    items = [
        {"content": {"type": "text", "text": "a", "role": "query"}, "dimensions": 64, "truncate": True},
        {"content": {"type": "image", "data": b"a"}, "multivector": True, "against": 0, "adapter": "code"},
        {"content": {"type": "document", "chunks": ["a", "b"], "role": "passage"}, "normalized": False},
    ]
    sent = {"items": items, "priority": 1, "queries": [{"type": "text", "text": "q", "role": "plain"}]}
    assert contract.decode_request(msgspec.msgpack.encode(sent)) == EncodeRequest(
        [
            Item(Text("a", "query"), dimensions=64, truncate=True),
            Item(Image(b"a"), multivector=True, against=0, adapter="code"),
            Item(Document(("a", "b"), "passage"), normalized=False),
        ],
        priority=1,
        queries=[Text("q", "plain")],
    )


@pytest.mark.parametrize("part", ["request", "item", "content"])
def test_request_with_an_unknown_field_is_refused(part: str) -> None:
    content = {"type": "text", "text": "a", "role": "query"}
    item = {"content": content}
    request = {"items": [item]}
    {"request": request, "item": item, "content": content}[part]["new"] = True
    with pytest.raises(msgspec.ValidationError, match="new"):
        contract.decode_request(msgspec.msgpack.encode(request))
