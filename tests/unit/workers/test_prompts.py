"""Prompts: what the engine reads of an item, and which items are refused."""

from typing import Any

import pytest
from tokenizers import Tokenizer

from tests.integration.conftest import UPSTREAM
from workers.chunks import join, spans_of
from workers.item_error import ItemError
from workers.plugin.pooling_spec import PoolingSpec
from workers.prompts import PREFIXES, Prompt, Prompter
from workers.shared.contract import Document, Item, Text

TOKENIZER = Tokenizer.from_file(str(UPSTREAM / "tokenizer.json"))
MAX_TOKENS = 50
# The longest token of the fixture has 20 letters.
MAX_CHARACTERS = 51 * 30
# Words, white space, composed characters, scripts of several bytes, and the longest tokens.
PIECES = [
    "over and ",
    " ",
    "u\u0308\u0304",
    "\u01d6",
    "\u6d77",
    "a",
    "\n\n  ",
    "<|object_ref_start|>",
    "e\u0301 ",
]


class Watched:
    """The tokenizer; remembers the longest text, and fails for texts with `surprise`."""

    def __init__(self) -> None:
        self.longest = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(TOKENIZER, name)

    def encode_batch(self, texts: list[str], **options: Any) -> Any:
        self.longest = max(self.longest, *map(len, texts))
        if any("surprise" in text for text in texts):
            raise RuntimeError("surprise")
        return TOKENIZER.encode_batch(texts, **options)

    encode_batch_fast = encode_batch


def whole(item: Item) -> Prompt | ItemError:
    """The prompt of a text or document that is tokenized whole, however long."""
    content = item.content
    assert isinstance(content, Text | Document)
    prefix, starts = PREFIXES[content.role], []
    if isinstance(content, Text):
        text = prefix + content.text
    else:
        text, starts = join(prefix, content.chunks)
    encoding = TOKENIZER.encode(text, add_special_tokens=False)
    over = len(encoding.ids) > MAX_TOKENS
    if over and not item.truncate:
        return ItemError("token_limit", "too long")
    spans = []
    if starts:
        try:
            spans = spans_of([start for start, _ in encoding.offsets], starts, MAX_TOKENS)
        except ItemError as error:
            return error
    cut = max(0, len(spans) - 1) if over else None
    return Prompt(encoding.ids[:MAX_TOKENS], None, PoolingSpec(tuple(spans)), cut)


async def check(item: Item) -> None:
    """The prompt is that of the whole text, though a long text is shortened before."""
    tokenizer: Any = Watched()
    [found] = await Prompter(tokenizer, MAX_TOKENS).prompts([item])
    expected = whole(item)
    assert tokenizer.longest <= MAX_CHARACTERS
    if isinstance(expected, ItemError):
        assert isinstance(found, ItemError)
        assert found.code == expected.code
    else:
        assert found == expected


@pytest.mark.parametrize("piece", PIECES)
async def test_text_of_any_length(piece: str) -> None:
    for count in (1, 10, 40, 45, 48, 50, 51, 500, 1600, 5000):
        for truncate in (False, True):
            await check(Item(Text(piece * count, "query"), truncate=truncate))


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("before", [1, 30, 800, 1490, 1520, 1600])
async def test_document_of_any_length(piece: str, before: int) -> None:
    first = ("word " * 400)[:before]
    for last in (1, 40, 2000):
        for chunks in (
            (first, "b" + piece * last),
            ("a", first, "b" + piece * last),
            (first, "b" * 2000, "c"),
        ):
            for truncate in (False, True):
                await check(Item(Document(chunks, "passage"), truncate=truncate))


async def test_unread_text_error_names_length_and_limit() -> None:
    [error] = await Prompter(TOKENIZER, MAX_TOKENS).prompts([Item(Text("a" * 10_000, "query"))])
    assert "10007 characters" in str(error)
    assert f"{MAX_TOKENS} tokens" in str(error)


async def test_tokenizer_failure_fails_one_item() -> None:
    prompter = Prompter(Watched(), 100)  # type: ignore[arg-type]
    good = [Item(Text("fine", "query")), Item(Document(("some", "chunks"), "passage"))]
    for items in ([good[0], Item(Text("surprise", "query"))], [*good, Item(Text("surprise" * 99, "query"))]):
        *prompts, bad = await prompter.prompts(items)
        assert isinstance(bad, ItemError)
        assert bad.code == "internal"
        assert prompts == await Prompter(TOKENIZER, 100).prompts(items[:-1])
        assert all(isinstance(prompt, Prompt) for prompt in prompts)


async def test_file_padding_and_truncation_are_disabled() -> None:
    trained = Tokenizer.from_str(TOKENIZER.to_str())
    trained.enable_padding(pad_token="<|endoftext|>", pad_id=trained.token_to_id("<|endoftext|>"))
    trained.enable_truncation(8)
    items = [Item(Text("a", "query")), Item(Text("a long text of many more words than eight", "query"))]
    found = await Prompter(Tokenizer.from_str(trained.to_str()), 100).prompts(items)
    assert found == await Prompter(TOKENIZER, 100).prompts(items)
