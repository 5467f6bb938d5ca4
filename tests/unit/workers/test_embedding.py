"""What a variant's worker makes of a batch, with an engine that is a function."""

import tracemalloc
from collections.abc import Awaitable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from tests.integration.conftest import UPSTREAM
from workers.decoding import Decoder
from workers.embedding import Embedder, max_sim
from workers.engine import Encoded
from workers.images import striped_png
from workers.prompts import Prompt, Prompter
from workers.shared.contract import EncodeRequest, Failure, Frame, Image, Item, Text, Vector


class Engine:
    """Decodes images; every vector is the same."""

    info = SimpleNamespace(multivector_dimensions=4)
    tolerance = 0.005

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
    items = [Item(Image(striped_png())), Item(Image(b"none")), Item(Text("fine", "query"))]
    good, bad, text = await frames(EncodeRequest(items))
    assert isinstance(good, Vector)
    assert isinstance(text, Vector)
    assert isinstance(bad, Failure)
    assert (bad.index, bad.code) == (1, "media_invalid")


async def test_whose_image_is_none_is_said_where_there_is_a_query() -> None:
    against = [Item(Text("a", "passage"), against=query) for query in (0, 1, 1)]
    items = [*against, Item(Image(b"none"), against=0)]
    queries: list[Text | Image] = [Image(striped_png()), Image(b"none")]
    good, *bad = await frames(EncodeRequest(items, queries=queries))
    assert isinstance(good, Vector)
    assert all(isinstance(frame, Failure) and frame.code == "media_invalid" for frame in bad)
    assert [getattr(frame, "message", "").startswith("the query: ") for frame in bad] == [True, True, False]


@pytest.mark.parametrize(("asked", "found"), [(1, 1), (3, 5), (5000, 4000), (70, 40_000)])
async def test_late_interaction_is_the_mean_of_the_best_and_takes_little_memory(
    asked: int, found: int
) -> None:
    random = np.random.default_rng(0)
    query, document = (random.normal(size=(rows, 4)).astype(np.float32) for rows in (asked, found))
    expected = np.mean([(document @ row).max() for row in query])
    tracemalloc.start()
    try:
        score = await max_sim(query, document)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert score == pytest.approx(expected, rel=1e-5)
    assert most < 70 << 20
