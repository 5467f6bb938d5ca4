"""The wire between router and worker."""

import msgspec
import pytest

from workers.shared.contract import EncodeRequest, Item, Text, decode_request, encode_request

QUERY, DOCUMENT = Text("a query", "query"), Text("a document", "passage")


def test_a_batch_comes_over_as_it_was_sent() -> None:
    batch = EncodeRequest([Item(DOCUMENT, against=0), Item(DOCUMENT)], priority=1, queries=[QUERY])
    assert decode_request(encode_request(batch)) == batch


@pytest.mark.parametrize("place", [-1, 1])
def test_an_item_that_is_held_against_no_query_of_the_batch_is_refused(place: int) -> None:
    wire = {
        "items": [{"content": {"type": "text", "text": "a", "role": "passage"}, "against": place}],
        "queries": [{"type": "text", "text": "q", "role": "query"}],
    }
    with pytest.raises(msgspec.ValidationError, match="another query"):
        decode_request(msgspec.msgpack.encode(wire))
