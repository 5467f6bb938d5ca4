"""The wire contract between router and worker."""

import msgspec
import pytest

from triptych.workers.shared.contract import EncodeRequest, Item, Text, decode_request, encode_request

QUERY, DOCUMENT = Text("a query", "query"), Text("a document", "passage")


def test_batch_survives_the_wire() -> None:
    batch = EncodeRequest([Item(DOCUMENT, against=0), Item(DOCUMENT)], priority=1, queries=[QUERY])
    assert decode_request(encode_request(batch)) == batch


@pytest.mark.parametrize("index", [-1, 1])
def test_unknown_query_index_is_refused(index: int) -> None:
    wire = {
        "items": [{"content": {"type": "text", "text": "a", "role": "passage"}, "against": index}],
        "queries": [{"type": "text", "text": "q", "role": "query"}],
    }
    with pytest.raises(msgspec.ValidationError, match="against"):
        decode_request(msgspec.msgpack.encode(wire))
