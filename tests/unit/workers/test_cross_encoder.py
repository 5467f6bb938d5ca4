"""The service of a cross-encoder: its windows, scores and config."""

import asyncio
import gc
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from transformers import CONFIG_MAPPING
from vllm.model_executor.models.registry import _SEQUENCE_CLASSIFICATION_MODELS

from tests.cross_encoders import CONTEXT, published_config, write_bert, write_published
from triptych.workers import cross_encoder
from triptych.workers.checkpoints.layout import CONFIG, TOKENIZER, CheckpointError
from triptych.workers.cross_encoder import CrossEncoder
from triptych.workers.item_error import ItemError
from triptych.workers.settings import WorkerSettings
from triptych.workers.shared.contract import EncodeRequest, Item, Text, Vector
from triptych.workers.window_reader import MODEL_TYPES, WindowReader, read_config

BOUND = 1024
"""WORKER_MAX_TOKENS"""
WINDOWS = BOUND // CONTEXT


class Engine:
    """Records its input. The score is the number of requests so far that wait together."""

    dtype = "float32"

    def __init__(self, args: dict[str, Any]) -> None:
        self.args = args
        self.read: list[list[int]] = []
        self.extra: list[dict[str, Any] | None] = []
        self.waiting = 0

    def params(self, _: str, extra: dict[str, Any] | None) -> None:
        self.extra.append(extra)

    async def encode_tokens(self, token_ids: list[int], *_: object) -> Any:
        self.read.append(token_ids)
        self.waiting += 1
        await asyncio.sleep(0)
        data = torch.tensor([float(self.waiting)])
        return SimpleNamespace(outputs=SimpleNamespace(data=data), prompt_token_ids=token_ids)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    stub = Engine({})

    def start(args: dict[str, Any]) -> Engine:
        stub.args = args
        return stub

    monkeypatch.setattr(cross_encoder, "Engine", start)
    return stub


def cross_encoder_of(folder: Path, **settings: Any) -> CrossEncoder:
    worker = WorkerSettings(model="m", **settings)
    return CrossEncoder(WindowReader(folder, "rerank", worker), worker)


def reader_of(folder: Path) -> WindowReader:
    return WindowReader(folder, "rerank", WorkerSettings(model="m", max_tokens=BOUND))


def text(content: str) -> Text:
    return Text(content, "passage")


async def vectors(folder: Path, *texts: str, query: str = "a river") -> list[Vector]:
    service = cross_encoder_of(folder, max_tokens=BOUND)
    documents = [Item(Text(text, "passage"), against=0) for text in texts]
    jobs = await service.jobs(EncodeRequest(documents, queries=[Text(query, "query")]))
    return [await job() for job in jobs if not isinstance(job, ItemError)]


async def test_pair_padding_and_truncation_are_disabled(tmp_path: Path, engine: Engine) -> None:
    write_bert(tmp_path)
    texts = ("short", "long " * 300)
    await vectors(tmp_path, *texts)
    expected = engine.read.copy()
    engine.read.clear()
    trained = Tokenizer.from_file(str(tmp_path / TOKENIZER))
    trained.enable_padding(pad_token="<pad>", pad_id=1, length=64)
    trained.enable_truncation(8)
    trained.save(str(tmp_path / TOKENIZER))
    await vectors(tmp_path, *texts)
    assert engine.read == expected
    assert [len(tokens) == CONTEXT for tokens in expected[:2]] == [False, True]


@pytest.mark.parametrize(("length", "cut"), [(2 * CONTEXT, None), ((WINDOWS + 1) * CONTEXT, 0)])
async def test_best_window_scores(tmp_path: Path, engine: Engine, length: int, cut: int | None) -> None:
    write_bert(tmp_path)
    [vector] = await vectors(tmp_path, "x" * length)
    count = len(engine.read)
    assert 2 <= count <= WINDOWS
    assert torch.frombuffer(bytearray(vector.data), dtype=torch.float32).tolist() == [count]
    assert vector.tokens == sum(map(len, engine.read)) <= BOUND
    assert vector.cut == cut


class Counting:
    """A tokenizer that remembers the longest text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.longest = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def encode_batch(self, pairs: list[tuple[str, str]]) -> Any:
        self.longest = max(self.longest, *(len(text) for pair in pairs for text in pair))
        return self._tokenizer.encode_batch(pairs)


def test_megabytes_are_not_tokenized(tmp_path: Path) -> None:
    write_bert(tmp_path)
    reader = reader_of(tmp_path)
    counting: Any = Counting(reader._tokenizer)
    reader._tokenizer = counting
    pair = reader.pair(reader.query(text("why " * 1_000_000)), text("long " * 1_000_000))
    assert pair.cut
    assert len(pair.prompts) == WINDOWS
    assert counting.longest < 100_000


@pytest.mark.parametrize("length", [1, CONTEXT // 2, CONTEXT // 2 + 1, 10 * CONTEXT])
def test_windows_cover_the_document(tmp_path: Path, length: int) -> None:
    write_bert(tmp_path)
    plain = Tokenizer.from_file(str(tmp_path / TOKENIZER))
    reader = reader_of(tmp_path)
    query = reader.query(text("y" * length))
    assert isinstance(query, Text)
    assert len(plain.encode(query.text, add_special_tokens=False)) == min(length, CONTEXT // 2)
    document = "".join(map(chr, range(33, 127))) * 2
    ids = plain.encode(document, add_special_tokens=False).ids
    pair = reader.pair(query, text(document))
    second_segment = min(length, CONTEXT // 2) + 2
    assert pair.extra == {"compressed_token_type_ids": second_segment}
    covered: list[int] = []
    for window in pair.prompts:
        assert len(window) <= CONTEXT
        own = window[second_segment:-1]
        overlap = next(
            size for size in range(len(own), -1, -1) if covered[len(covered) - size :] == own[:size]
        )
        assert not covered or 0 < overlap < len(own)
        covered += own[overlap:]
    assert covered == ids
    assert not pair.cut


@pytest.mark.parametrize(
    ("architecture", "token_types"),
    [("BertForSequenceClassification", True), ("ModernBertForSequenceClassification", False)],
)
async def test_only_bert_gets_token_types(
    tmp_path: Path, engine: Engine, architecture: str, token_types: bool
) -> None:
    write_bert(tmp_path)
    config = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps(config | {"architectures": [architecture]}))
    await vectors(tmp_path, "short")
    begin = Tokenizer.from_file(str(tmp_path / TOKENIZER)).encode("a river", "short").type_ids.index(1)
    assert engine.extra == [{"compressed_token_type_ids": begin} if token_types else None]


@pytest.mark.parametrize("positions", [1026, 514])
def test_roberta_positions_start_after_padding(tmp_path: Path, positions: int) -> None:
    config = published_config() | {"max_position_embeddings": positions}
    (tmp_path / CONFIG).write_text(json.dumps(config))
    assert read_config(tmp_path).context == positions - 2


def test_published_config_is_rewritten(tmp_path: Path, engine: Engine) -> None:
    write_published(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    service = cross_encoder_of(tmp_path)
    folder = Path(engine.args["hf_config_path"])
    config = json.loads((folder / CONFIG).read_text())
    published = published_config()
    del published["auto_map"]
    assert config == published | {"model_type": "xlm-roberta"}
    assert engine.args["model"] == str(tmp_path)
    del service
    gc.collect()
    assert not folder.exists()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    "changes",
    [
        {"architectures": ["NewForSequenceClassification"], "model_type": "new"},
        {"architectures": ["NewForSequenceClassification"], "auto_map": None},
        {"position_embedding_type": "rotary"},
    ],
)
def test_remote_code_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    (tmp_path / CONFIG).write_text(json.dumps(published_config() | changes))
    with pytest.raises(CheckpointError, match="remote code"):
        read_config(tmp_path)


@pytest.mark.parametrize("content", [None, "version https://git-lfs.github.com/spec/v1\n"])
def test_tokenizer_that_was_not_fetched_is_refused(tmp_path: Path, content: str | None) -> None:
    write_bert(tmp_path)
    (tmp_path / TOKENIZER).unlink()
    if content:
        (tmp_path / TOKENIZER).write_text(content)
    with pytest.raises(CheckpointError, match=TOKENIZER):
        cross_encoder_of(tmp_path)


@pytest.mark.parametrize(("architecture", "model_type"), MODEL_TYPES.items())
def test_architectures_are_supported(architecture: str, model_type: str) -> None:
    assert architecture in _SEQUENCE_CLASSIFICATION_MODELS
    assert model_type in CONFIG_MAPPING
