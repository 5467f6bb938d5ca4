"""What a variant's worker makes of a batch, with an engine that is a function."""

from collections.abc import Awaitable
from types import SimpleNamespace
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from tests.integration.conftest import UPSTREAM
from workers.contract import EncodeRequest, Failure, Frame, Image, Item, Text, Vector
from workers.decoding import Decoder
from workers.embedding import Embedder
from workers.engine import Encoded
from workers.images import blank_png
from workers.prompts import Prompt, Prompter


class Engine:
    """Decodes images; every vector is the same."""

    info = SimpleNamespace(multivector_dimensions=4)

    def __init__(self) -> None:
        self.prompter = Prompter(Tokenizer.from_file(str(UPSTREAM / "tokenizer.json")), 100)
        self._decoder = Decoder()

    async def encode(self, prompt: Prompt, priority: int = 0) -> Encoded:
        if prompt.image is not None:
            async with self._decoder.decoded(prompt.image):
                pass
        return Encoded(np.full((2, 4), 0.5, np.float32), [1, 2])


async def frames(request: EncodeRequest) -> list[Frame]:
    engine: Any = Engine()
    jobs = await Embedder(engine).jobs(request)
    done: list[Awaitable[Frame] | Failure] = [job if isinstance(job, Failure) else job() for job in jobs]
    return [frame if isinstance(frame, Failure) else await frame for frame in done]


async def test_an_image_that_is_none_fails_alone() -> None:
    items = [Item(Image(blank_png())), Item(Image(b"none")), Item(Text("fine", "query"))]
    good, bad, text = await frames(EncodeRequest(items))
    assert isinstance(good, Vector)
    assert isinstance(text, Vector)
    assert isinstance(bad, Failure)
    assert (bad.index, bad.code) == (1, "media_invalid")


async def test_whose_image_is_none_is_said_where_there_is_a_query() -> None:
    against = [Item(Text("a", "passage"), against=query) for query in (0, 1, 1)]
    items = [*against, Item(Image(b"none"), against=0)]
    queries = [Image(blank_png()), Image(b"none")]
    good, *bad = await frames(EncodeRequest(items, queries=queries))
    assert isinstance(good, Vector)
    assert all(isinstance(frame, Failure) and frame.code == "media_invalid" for frame in bad)
    assert [getattr(frame, "message", "").startswith("the query: ") for frame in bad] == [True, True, False]
