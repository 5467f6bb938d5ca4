"""What the engine reads of an item, and that what is wrong with one is not its neighbours' concern."""

from typing import Any

import pytest
from tokenizers import Tokenizer

from tests.integration.conftest import UPSTREAM
from workers.prompts import Prompt, Prompter, PromptError, TokenLimitError
from workers.shared.contract import Document, Item, Text

TOKENIZER = Tokenizer.from_file(str(UPSTREAM / "tokenizer.json"))


class Surprising:
    """A tokenizer that fails on a batch with the word `surprise` in it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(TOKENIZER, name)

    def encode_batch(self, texts: list[str], **options: Any) -> Any:
        if any("surprise" in text for text in texts):
            raise RuntimeError("nobody expected that")
        return TOKENIZER.encode_batch(texts, **options)

    encode_batch_fast = encode_batch


async def test_what_no_one_expects_of_a_text_fails_it_alone() -> None:
    prompter = Prompter(Surprising(), 100)  # type: ignore[arg-type]
    good = [Item(Text("fine", "query")), Item(Document(("some", "parts"), "passage"))]
    for items in ([good[0], Item(Text("surprise", "query"))], [*good, Item(Text("surprise" * 99, "query"))]):
        *prompts, bad = await prompter.prompts(items)
        assert isinstance(bad, PromptError)
        assert prompts == await Prompter(TOKENIZER, 100).prompts(items[:-1])
        assert all(isinstance(prompt, Prompt) for prompt in prompts)


async def test_padding_and_truncation_of_the_tokenizers_file_are_not_obeyed() -> None:
    trained = Tokenizer.from_str(TOKENIZER.to_str())
    trained.enable_padding(pad_token="<|endoftext|>", pad_id=trained.token_to_id("<|endoftext|>"))
    trained.enable_truncation(8)
    items = [Item(Text("a", "query")), Item(Text("a long text of many more words than eight", "query"))]
    found = await Prompter(Tokenizer.from_str(trained.to_str()), 100).prompts(items)
    assert found == await Prompter(TOKENIZER, 100).prompts(items)


class Counting:
    """A tokenizer that notes how long the longest text is that it is given."""

    def __init__(self) -> None:
        self.longest = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(TOKENIZER, name)

    def encode_batch(self, texts: list[str], **options: Any) -> Any:
        self.longest = max(self.longest, *map(len, texts))
        return TOKENIZER.encode_batch(texts, **options)

    encode_batch_fast = encode_batch


MAX_TOKENS = 50
# The longest token of the fixture has 20 letters.
MAX_CHARACTERS = 51 * 30
# Words, white space, characters of several code points, scripts of several bytes, and tokens as long as any.
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


@pytest.fixture
def whole() -> Prompter:
    """Tokenises everything as it is, however long."""
    prompter = Prompter(TOKENIZER, MAX_TOKENS)
    prompter._reach = 1 << 40
    return prompter


@pytest.mark.parametrize("piece", PIECES)
async def test_a_text_of_any_length_is_cut_and_refused_as_if_it_were_read_whole(
    piece: str, whole: Prompter
) -> None:
    for count in (1, 10, 40, 45, 48, 50, 51, 500, 1600, 5000):
        text = Text(piece * count, "query")
        for item in (Item(text), Item(text, truncate=True)):
            tokenizer: Any = Counting()
            prompter = Prompter(tokenizer, MAX_TOKENS)
            [found], [expected] = await prompter.prompts([item]), await whole.prompts([item])
            assert tokenizer.longest <= MAX_CHARACTERS
            assert type(found) is type(expected)
            assert isinstance(found, TokenLimitError) or found == expected


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("before", [1, 30, 800, 1490, 1520, 1600])
async def test_so_is_a_document(piece: str, before: int, whole: Prompter) -> None:
    first = ("word " * 400)[:before]
    for last in (1, 40, 2000):
        for parts in (
            (first, "b" + piece * last),
            ("a", first, "b" + piece * last),
            (first, "b" * 2000, "c"),
        ):
            for truncate in (False, True):
                item = Item(Document(parts, "passage"), truncate=truncate)
                tokenizer: Any = Counting()
                [found] = await Prompter(tokenizer, MAX_TOKENS).prompts([item])
                [expected] = await whole.prompts([item])
                assert tokenizer.longest <= MAX_CHARACTERS
                assert type(found) is type(expected)
                assert isinstance(found, TokenLimitError) or found == expected


async def test_a_text_that_is_refused_unread_is_told_its_length_and_the_limit() -> None:
    [fault] = await Prompter(TOKENIZER, MAX_TOKENS).prompts([Item(Text("a" * 10_000, "query"))])
    assert "10007 characters" in str(fault)
    assert f"{MAX_TOKENS} tokens" in str(fault)
