"""Which tokens of a joined document belong to which part."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tests.integration.conftest import UPSTREAM
from workers.chunks import ChunkCutError, EmptyChunkError, join, spans_of

TOKENIZER = Tokenizer.from_file(str(UPSTREAM / "tokenizer.json"))
PREFIX = "Passage: "


def spans(chunks: list[str], limit: int = 10_000) -> list[tuple[int, int]]:
    text, starts = join(PREFIX, chunks)
    encoding = TOKENIZER.encode(text, add_special_tokens=False)
    return spans_of([start for start, _ in encoding.offsets], starts, limit)


def test_parts_are_joined_by_a_space_where_there_is_no_white_space() -> None:
    text, starts = join(PREFIX, ["One.", "Two.", " Three.", "Four.\n", "Five."])
    assert text == "Passage: One. Two. Three. Four.\nFive."
    assert [text[start:][:5] for start in starts] == ["Passa", " Two.", " Thre", " Four", "\nFive"]


@pytest.mark.parametrize(
    "parts", [["One. ", "Two."], ["One.", " Two."], ["One. ", " Two."], ["One.\n\n", "Two."]]
)
def test_white_space_at_a_boundary_takes_no_word_across_it(parts: list[str]) -> None:
    text, _ = join(PREFIX, parts)
    encoding = TOKENIZER.encode(text, add_special_tokens=False)
    (_, end), (start, _) = spans(parts)
    assert end == start
    first_part = text[: encoding.offsets[end - 1][1]]
    assert first_part.strip() == "Passage: One."


def test_the_prefix_belongs_to_the_first_part() -> None:
    [(start, end)] = spans(["One."])
    assert start == 0
    assert end == len(TOKENIZER.encode(PREFIX + "One.", add_special_tokens=False).ids)


@given(st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=8))
def test_the_parts_share_out_all_tokens_in_order(chunks: list[str]) -> None:
    try:
        found = spans(chunks)
    except EmptyChunkError:
        return
    assert found[0][0] == 0
    assert found[-1][1] == len(TOKENIZER.encode(join(PREFIX, chunks)[0], add_special_tokens=False).ids)
    for (start, end), (following, _) in pairwise(found):
        assert start < end == following


@given(st.lists(st.from_regex(r"\w[\w ]{0,20}", fullmatch=True), min_size=1, max_size=8))
def test_parts_that_begin_with_a_word_are_never_empty(chunks: list[str]) -> None:
    assert len(spans(chunks)) == len(chunks)


def test_a_token_across_a_boundary_belongs_to_the_part_it_begins_in() -> None:
    # Tokens begin at 0, 4 and 8; the part that begins at 6 gets none of the second one.
    assert spans_of([0, 4, 8], [0, 6], 10) == [(0, 2), (2, 3)]


def test_a_part_within_another_parts_token_is_refused() -> None:
    with pytest.raises(EmptyChunkError, match="part 1 has no token"):
        spans_of([0, 4, 8], [0, 5, 7], 10)


def test_an_empty_part_is_refused() -> None:
    with pytest.raises(EmptyChunkError, match="part 1"):
        spans(["One.", "", "Two."])


def test_the_limit_cuts_the_last_part_and_refuses_any_after_it() -> None:
    assert spans_of([0, 1, 2, 3, 4, 5], [0, 3], 4) == [(0, 3), (3, 4)]
    with pytest.raises(ChunkCutError, match="part 2 begins at token 5 of 6"):
        spans_of([0, 1, 2, 3, 4, 5], [0, 3, 5], 4)
