"""Prompts: what the engine reads of an item, and which items are refused."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tests.integration.conftest import UPSTREAM
from triptych.workers.chunks import join, spans_of
from triptych.workers.item_error import ItemError
from triptych.workers.plugin.pooling_spec import PoolingSpec
from triptych.workers.prompts import PREFIXES, Prompt, Prompter
from triptych.workers.shared.contract import Document, Item, Text

TOKENIZER = Tokenizer.from_file(str(UPSTREAM / "tokenizer.json"))
MAX_TOKENS = 50
# Words, white space, composed characters, scripts of several bytes, and the longest tokens.
PIECES = ["over and ", " ", "u\u0308\u0304", "\u0301", "\u6d77", "a", "\n\n  ", "<|object_ref_start|>"]


class Watched:
    """The tokenizer; remembers the most characters at once, and fails for texts with `surprise`."""

    def __init__(self) -> None:
        self.most = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(TOKENIZER, name)

    def encode_batch(self, texts: list[str], **options: Any) -> Any:
        self.most = max(self.most, sum(map(len, texts)))
        if any("surprise" in text for text in texts):
            raise RuntimeError("surprise")
        return TOKENIZER.encode_batch(texts, **options)

    encode_batch_fast = encode_batch


async def prompts(*items: Item, max_tokens: int = MAX_TOKENS) -> list[Prompt | ItemError]:
    return await Prompter(Watched(), max_tokens).prompts(items)  # type: ignore[arg-type]


def whole(item: Item) -> Prompt | str:
    """The prompt of an item that is tokenized whole, however long, or the code of its error."""
    content = item.content
    assert isinstance(content, Text | Document)
    chunks = (content.text,) if isinstance(content, Text) else content.chunks
    text, starts = join(PREFIXES[content.role], chunks)
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
    watched: Any = Watched()
    text = Item(Text(piece * 1_000_000, "passage"), truncate=True)
    found = await Prompter(watched, MAX_TOKENS).prompts([text] * 8)
    assert all(isinstance(prompt, Prompt) for prompt in found)
    assert watched.most < 100_000


async def test_many_texts_are_tokenized_in_parts() -> None:
    watched: Any = Watched()
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
