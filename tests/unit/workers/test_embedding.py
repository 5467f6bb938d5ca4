"""The service of a variant, with an engine that is a function."""

import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from tests.exit_status import exit_status
from tests.fakes.worker import FakeWorker
from tests.integration.conftest import UPSTREAM
from tests.unit.checkpoints.files import edit_json
from triptych.workers import embedding
from triptych.workers.checkpoints.__main__ import cli
from triptych.workers.checkpoints.variant import read_variant
from triptych.workers.embedding import Embedder, load_embedder, max_sim
from triptych.workers.item_error import ItemError
from triptych.workers.pixels import striped_png
from triptych.workers.prompts import Prompter
from triptych.workers.settings import WorkerSettings
from triptych.workers.shared.contract import EncodeRequest, Image, Item, Text, Vector
from triptych.workers.vllm_engine import WrongVectorError

DIMENSIONS = 4
Adapters = tuple[str | None, ...]


class Engine:
    """Every value of every vector is `value`; with adapters it is the number of the request's."""

    def __init__(self, value: float, adapters: Adapters) -> None:
        self._value, self.adapters = value, adapters

    def params(self, _: str, extra: dict[str, Any] | None = None) -> dict[str, Any]:
        return extra or {}

    async def encode_tokens(
        self, token_ids: list[int], params: dict[str, Any], priority: int, adapter: str | None
    ) -> Any:
        rows = (len(token_ids),) if params.get("multivector") else ()
        assert not rows or params.get("adapter") == adapter
        value = self._value if adapter is None else float(self.adapters.index(adapter))
        data = torch.full((*rows, DIMENSIONS), value)
        return SimpleNamespace(outputs=SimpleNamespace(data=data), prompt_token_ids=token_ids)

    async def encode(self, engine_input: dict[str, Any], *options: Any) -> Any:
        return await self.encode_tokens(engine_input["prompt_token_ids"], *options)


def embedder(value: float = 0.5, adapters: Adapters = (None,), pool: str = "retrieval") -> Embedder:
    engine: Any = Engine(value, adapters)
    info = FakeWorker(dimensions=DIMENSIONS).info
    info = msgspec.structs.replace(info, task=pool, multivector_dimensions=DIMENSIONS)
    prompter = Prompter(Tokenizer.from_file(str(UPSTREAM / "tokenizer.json")), 100)
    return Embedder(engine, prompter, info, 0.005)


async def results(request: EncodeRequest, **options: Any) -> list[Vector | ItemError]:
    found: list[Vector | ItemError] = []
    for job in await embedder(**options).jobs(request):
        try:
            found.append(job if isinstance(job, ItemError) else await job())
        except ItemError as error:
            found.append(error)
    return found


@pytest.mark.parametrize(
    ("pool", "chunked"), [("code", True), ("v5-small.retrieval", True), ("v3.base", False)]
)
def test_long_canary_is_prefilled_in_chunks_where_it_can_be(pool: str, chunked: bool) -> None:
    service = embedder(pool=pool)
    [item] = service.canaries["long text"].items
    assert isinstance(item.content, Text)
    assert (len(item.content.text.split()) > service.info.batch_tokens) == chunked


def test_variant_that_is_replaced_while_it_is_loaded_is_not_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert exit_status(cli, "merge", UPSTREAM, tmp_path, "--pool", "code") == 0

    def load(*_: object) -> Any:
        edit_json(tmp_path / "code" / "variant.json", digest="another")
        return SimpleNamespace(shutdown=lambda: None)

    monkeypatch.setattr(embedding, "Engine", load)
    with pytest.raises(RuntimeError, match="replaced"):
        load_embedder(read_variant(tmp_path / "code"), "code", WorkerSettings(model="code"))


async def test_broken_image_fails_alone() -> None:
    items = [Item(Image(striped_png())), Item(Image(b"none")), Item(Text("fine", "query"))]
    good, bad, text = await results(EncodeRequest(items))
    assert isinstance(good, Vector)
    assert isinstance(text, Vector)
    assert isinstance(bad, ItemError)
    assert bad.code == "media_invalid"


async def test_error_says_if_query_is_broken() -> None:
    against = [Item(Text("a", "passage"), against=query) for query in (0, 1, 1)]
    items = [*against, Item(Image(b"none"), against=0)]
    queries: list[Text | Image] = [Image(striped_png()), Image(b"none")]
    good, *bad = await results(EncodeRequest(items, queries=queries))
    assert isinstance(good, Vector)
    frames = [error.frame(0) for error in bad if isinstance(error, ItemError)]
    assert [frame.code for frame in frames] == ["media_invalid"] * 3
    assert [frame.query for frame in frames] == [True, True, False]


def values(found: list[Vector | ItemError]) -> list[float]:
    return [float(np.frombuffer(one.data, np.float32)[0]) for one in found if isinstance(one, Vector)]


async def test_shared_engine_encodes_with_the_adapter_of_each_item() -> None:
    adapters = ("zero", "one", "two")
    image = Image(striped_png())
    items = [Item(content, adapter=name) for name in adapters for content in (Text("a", "query"), image)]
    assert values(await results(EncodeRequest(items), adapters=adapters)) == [0, 0, 1, 1, 2, 2]


async def test_query_is_read_with_the_adapter_of_its_item() -> None:
    items = [Item(Text("a", "passage"), against=0, adapter=name) for name in ("one", "two", "one")]
    found = await results(EncodeRequest(items, queries=[Text("b", "query")]), adapters=("zero", "one", "two"))
    assert values(found) == [DIMENSIONS * 1, DIMENSIONS * 4, DIMENSIONS * 1]


@pytest.mark.parametrize(
    ("adapters", "asked", "reason"),
    [
        (("zero", "one"), None, "adapter None: name one of zero, one"),
        (("zero", "one"), "two", "adapter 'two': name one of zero, one"),
        ((None,), "one", "adapter 'one': the adapter is merged"),
    ],
)
@pytest.mark.parametrize("against", [None, 0])
async def test_item_with_wrong_adapter_is_refused(
    adapters: tuple[str | None, ...], asked: str | None, reason: str, against: int | None
) -> None:
    items = [Item(Text("a", "query"), adapter=name, against=against) for name in (asked, adapters[0])]
    request = EncodeRequest(items, queries=[Text("b", "query")])
    refused, good = await results(request, adapters=adapters)
    assert isinstance(good, Vector)
    assert isinstance(refused, ItemError)
    assert refused.code == "unsupported"
    assert reason in str(refused)


def test_every_adapter_has_its_canaries() -> None:
    canaries = embedder(adapters=("zero", "one")).canaries
    found = {(name, request.items[0].adapter) for name, request in canaries.items()}
    assert {("short text, zero", "zero"), ("long text, one", "one"), ("image, one", "one")} <= found
    assert len(found) == 2 * 3


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
async def test_vector_with_nan_or_inf_is_an_error(value: float) -> None:
    with pytest.raises(WrongVectorError):
        await results(EncodeRequest([Item(Text("a", "query"))]), value=value)


@pytest.mark.parametrize(("asked", "found"), [(1, 1), (3, 5), (5000, 4000), (70, 40_000)])
async def test_max_sim_is_mean_of_best_in_bounded_memory(asked: int, found: int) -> None:
    random = np.random.default_rng(0)
    query, document = (random.normal(size=(rows, 4)).astype(np.float32) for rows in (asked, found))
    expected = np.mean([(document @ row).max() for row in query])
    tracemalloc.start()
    try:
        score = await max_sim(query, document)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert score == pytest.approx(expected, rel=1e-5)
    assert peak < 70 << 20
