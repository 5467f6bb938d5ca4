"""Late chunking: which tokens of a document belong to which chunk."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tests.integration.conftest import UPSTREAM
from triptych.workers.chunks import join, spans_of
from triptych.workers.item_error import ItemError

TOKENIZER = Tokenizer.from_file(str(UPSTREAM / "tokenizer.json"))
PREFIX = "Passage: "


def spans(chunks: list[str], limit: int = 10_000) -> list[tuple[int, int]]:
    text, starts = join(PREFIX, chunks)
    encoding = TOKENIZER.encode(text, add_special_tokens=False)
    return spans_of([start for start, _ in encoding.offsets], starts, limit)


def test_chunks_are_joined_with_spaces() -> None:
    text, starts = join(PREFIX, ["One.", "Two.", " Three.", "Four.\n", "Five."])
    assert text == "Passage: One. Two. Three. Four.\nFive."
    assert [text[start:][:5] for start in starts] == ["Passa", " Two.", " Thre", " Four", "\nFive"]


@pytest.mark.parametrize(
    "chunks", [["One. ", "Two."], ["One.", " Two."], ["One. ", " Two."], ["One.\n\n", "Two."]]
)
def test_white_space_moves_no_word(chunks: list[str]) -> None:
    text, _ = join(PREFIX, chunks)
    encoding = TOKENIZER.encode(text, add_special_tokens=False)
    (_, end), (start, _) = spans(chunks)
    assert end == start
    first = text[: encoding.offsets[end - 1][1]]
    assert first.strip() == "Passage: One."


@given(st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=8))
def test_chunks_share_all_tokens_in_order(chunks: list[str]) -> None:
    try:
        found = spans(chunks)
    except ItemError:
        return
    assert found[0][0] == 0
    assert found[-1][1] == len(TOKENIZER.encode(join(PREFIX, chunks)[0], add_special_tokens=False).ids)
    for (start, end), (following, _) in pairwise(found):
        assert start < end == following


@given(st.lists(st.from_regex(r"\w[\w ]{0,20}", fullmatch=True), min_size=1, max_size=8))
def test_chunk_with_a_word_is_never_empty(chunks: list[str]) -> None:
    assert len(spans(chunks)) == len(chunks)


def test_token_belongs_to_chunk_it_begins_in() -> None:
    # The chunk that begins at 6 does not get the token from 4 to 8.
    assert spans_of([0, 4, 8], [0, 6], 10) == [(0, 2), (2, 3)]


def test_chunk_without_token_is_refused() -> None:
    with pytest.raises(ItemError, match="chunk 1") as caught:
        spans_of([0, 4, 8], [0, 5, 7], 10)
    assert caught.value.code == "invalid"
    with pytest.raises(ItemError, match="chunk 1"):
        spans(["One.", "", "Two."])


def test_limit_cuts_last_chunk_and_refuses_later() -> None:
    assert spans_of([0, 1, 2, 3, 4, 5], [0, 3], 4) == [(0, 3), (3, 4)]
    with pytest.raises(ItemError, match="chunk 2 begins at token 5") as caught:
        spans_of([0, 1, 2, 3, 4, 5], [0, 3, 5], 4)
    assert caught.value.code == "token_limit"
