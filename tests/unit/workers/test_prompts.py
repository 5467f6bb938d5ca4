"""What the engine reads of an item, and that what is wrong with one is not its neighbours' concern."""

from typing import Any

from tokenizers import Tokenizer

from tests.integration.conftest import UPSTREAM
from workers.contract import Document, Item, Text
from workers.prompts import Prompt, Prompter, PromptError

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
