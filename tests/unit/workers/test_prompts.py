"""Prompts: what the engine reads of an item, and which items are refused."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from tests.integration.conftest import UPSTREAM
from tests.unit.workers.services import Watched
from triptych.workers.checkpoints.tiny import FILES
from triptych.workers.chunks import join, spans_of
from triptych.workers.item_error import ItemError
from triptych.workers.plugin.pooling_spec import PoolingSpec
from triptych.workers.prompts import Prompt, Prompter
from triptych.workers.shared.contract import Document, Image, Item, Role, Text
from triptych.workers.shared.families import V3, V4, V5_NANO, Family

TOKENIZER = Tokenizer.from_file(str(UPSTREAM / "tokenizer.json"))
MAX_TOKENS = 50
# Words, white space, composed characters, scripts of several bytes, and the longest tokens.
PIECES = ["over and ", " ", "u\u0308\u0304", "\u0301", "\u6d77", "a", "\n\n  ", "<|object_ref_start|>"]


async def prompts(*items: Item, max_tokens: int = MAX_TOKENS) -> list[Prompt | ItemError]:
    return await Prompter(Watched(TOKENIZER), max_tokens).prompts(items)  # type: ignore[arg-type]


def whole(item: Item) -> Prompt | str:
    """The prompt of an item that is tokenized whole, however long, or the code of its error."""
    content = item.content
    assert isinstance(content, Text | Document)
    chunks = (content.text,) if isinstance(content, Text) else content.chunks
    text, starts = join(V4.prefixes[content.role], chunks)
    encoding = TOKENIZER.encode(text, add_special_tokens=False)
    over = len(encoding.ids) > MAX_TOKENS
    if over and not item.truncate:
        return "token_limit"
    spans = []
    if isinstance(content, Document):
        try:
            spans = spans_of([start for start, _ in encoding.offsets], starts, MAX_TOKENS)
        except ItemError as error:
            return error.code
    cut = max(0, len(spans) - 1) if over else None
    return Prompt(encoding.ids[:MAX_TOKENS], None, PoolingSpec(tuple(spans)), cut)


# Repeated pieces, up to ten times as long as what is read of a long text.
long_texts = st.lists(
    st.tuples(st.sampled_from(PIECES), st.sampled_from([1, 3, 40, 400, 4000])), min_size=1, max_size=4
).map(lambda parts: "".join(piece * count for piece, count in parts))
contents = st.builds(Text, long_texts, st.just("query")) | st.builds(
    Document, st.lists(long_texts, min_size=1, max_size=3).map(tuple), st.just("passage")
)


@settings(max_examples=150, deadline=None)
@given(items=st.lists(st.builds(Item, contents, truncate=st.booleans()), min_size=1, max_size=3))
async def test_prompt_is_that_of_whole_text(items: list[Item]) -> None:
    found = await prompts(*items)
    assert [each.code if isinstance(each, ItemError) else each for each in found] == list(map(whole, items))


@pytest.mark.parametrize("piece", PIECES)
async def test_megabytes_are_not_tokenized(piece: str) -> None:
    watched: Any = Watched(TOKENIZER)
    text = Item(Text(piece * 1_000_000, "passage"), truncate=True)
    found = await Prompter(watched, MAX_TOKENS).prompts([text] * 8)
    assert all(isinstance(prompt, Prompt) for prompt in found)
    assert watched.most < 100_000


async def test_many_texts_are_tokenized_in_parts() -> None:
    watched: Any = Watched(TOKENIZER)
    text = Item(Text("a" * 100_000, "passage"))
    assert len(await Prompter(watched, 100_000).prompts([text] * 20)) == 20
    assert 200_000 < watched.most < 1_000_000


async def test_error_names_length_and_limit() -> None:
    [error] = await prompts(Item(Text("a " * 5_000, "query")))
    assert "10000 characters" in str(error)
    assert f"{MAX_TOKENS} tokens" in str(error)


async def test_tokenizer_failure_fails_one_item() -> None:
    good = [Item(Text("fine", "query")), Item(Document(("some", "chunks"), "passage"))]
    for items in ([good[0], Item(Text("surprise", "query"))], [*good, Item(Text("surprise" * 99, "query"))]):
        *others, bad = await prompts(*items, max_tokens=100)
        assert isinstance(bad, ItemError)
        assert bad.code == "internal"
        assert others == await prompts(*items[:-1], max_tokens=100)
        assert all(isinstance(prompt, Prompt) for prompt in others)


async def test_file_padding_and_truncation_are_disabled() -> None:
    trained = Tokenizer.from_str(TOKENIZER.to_str())
    trained.enable_padding(pad_token="<|endoftext|>", pad_id=trained.token_to_id("<|endoftext|>"))
    trained.enable_truncation(8)
    items = [Item(Text("a", "query")), Item(Text("a long text of many more words than eight", "query"))]
    found = await Prompter(Tokenizer.from_str(trained.to_str()), 100).prompts(items)
    assert found == await prompts(*items, max_tokens=100)


def tokenizer_of(family: Family) -> Tokenizer:
    """The tokenizer of a tiny checkpoint with special tokens."""
    tokenizer = Tokenizer.from_file(str(FILES / V3.name / "tokenizer.json"))
    if family is not V3:
        tokenizer = Tokenizer.from_str(TOKENIZER.to_str())
        ends = [(token, tokenizer.token_to_id(token)) for token in ("<|im_start|>", "<|endoftext|>")]
        tokenizer.post_processor = TemplateProcessing("<|im_start|> $A <|endoftext|>", special_tokens=ends)
    return tokenizer


with_special_tokens = pytest.mark.parametrize("family", [V3, V5_NANO], ids=lambda family: family.key)


@with_special_tokens
@pytest.mark.parametrize("role", ["query", "passage"])
@pytest.mark.parametrize("text", ["", "Ships at sea.", "the lighthouse keeper " * 100])
async def test_cut_prompt_keeps_special_tokens(family: Family, role: Role, text: str) -> None:
    """As transformers truncates."""
    tokenizer = tokenizer_of(family)
    expected = tokenizer_of(family)
    expected.enable_truncation(MAX_TOKENS)
    [prompt] = await Prompter(tokenizer, MAX_TOKENS, family).prompts([Item(Text(text, role), truncate=True)])
    assert isinstance(prompt, Prompt)
    assert prompt.token_ids == expected.encode(family.prefixes[role] + text).ids
    assert (prompt.cut is None) == (len(prompt.token_ids) < MAX_TOKENS)


@pytest.mark.parametrize("over", [0, 1])
async def test_special_tokens_count_against_limit(over: int) -> None:
    tokenizer = tokenizer_of(V3)
    text = "the lighthouse keeper"
    tokens = len(tokenizer.encode(text).ids)
    [prompt] = await Prompter(tokenizer, tokens - over, V3).prompts([Item(Text(text, "plain"))])
    assert isinstance(prompt, ItemError if over else Prompt)


async def test_chunks_at_the_ends_include_special_tokens() -> None:
    """A document of one chunk has the vector of its text."""
    tokenizer = tokenizer_of(V3)
    chunks = ("the lighthouse", "keeper wrote", "down each ship")
    ends = [len(tokenizer.encode(" ".join(chunks[:count])).ids) - 1 for count in (1, 2, 3)]
    prompter = Prompter(tokenizer, MAX_TOKENS, V3)
    [several, one] = await prompter.prompts([Item(Document(its, "plain")) for its in (chunks, chunks[:1])])
    assert isinstance(several, Prompt)
    assert isinstance(one, Prompt)
    assert several.pooling.spans == ((0, ends[0]), (ends[0], ends[1]), (ends[1], ends[2] + 1))
    assert one.pooling.spans == ((0, len(one.token_ids)),)


async def test_what_a_model_cannot_read_is_refused() -> None:
    items = [Item(Image(b"x")), Item(Document(("a", "b"), "passage")), Item(Text("a", "passage"))]
    *refused, text = await Prompter(tokenizer_of(V5_NANO), MAX_TOKENS, V5_NANO).prompts(items)
    assert [each.code for each in refused if isinstance(each, ItemError)] == ["unsupported"] * 2
    assert isinstance(text, Prompt)
