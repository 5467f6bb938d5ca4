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
from tests.unit.checkpoints.files import edit_json
from tests.unit.workers.services import Watched
from tests.vectors import array_of
from triptych.workers import cross_encoder
from triptych.workers.checkpoints.layout import CONFIG, TOKENIZER, CheckpointError
from triptych.workers.cross_encoder import CrossEncoder
from triptych.workers.item_error import ItemError
from triptych.workers.settings import WorkerSettings
from triptych.workers.shared.contract import EncodeRequest, Item, Text
from triptych.workers.window_reader import MODEL_TYPES, WindowReader, read_config

BOUND = 1024
"""WORKER_MAX_TOKENS"""
WINDOWS = BOUND // CONTEXT


class Engine:
    """The score is the number of requests so far that wait together."""

    dtype, waiting = "float32", 0

    def params(self, *_: object) -> None: ...

    async def encode_tokens(self, token_ids: list[int], *_: object) -> Any:
        self.waiting += 1
        await asyncio.sleep(0)
        data = torch.tensor([float(self.waiting)])
        return SimpleNamespace(outputs=SimpleNamespace(data=data), prompt_token_ids=token_ids)


def reader_of(folder: Path) -> WindowReader:
    return WindowReader(folder, "rerank", WorkerSettings(model="m", max_tokens=BOUND))


def text(content: str) -> Text:
    return Text(content, "passage")


def test_pair_padding_and_truncation_are_disabled(tmp_path: Path) -> None:
    write_bert(tmp_path)
    pairs = [(text("a river"), text(content)) for content in ("short", "long " * 300)]
    expected = [reader_of(tmp_path).pair(*pair) for pair in pairs]
    trained = Tokenizer.from_file(str(tmp_path / TOKENIZER))
    trained.enable_padding(pad_token="<pad>", pad_id=1, length=64)
    trained.enable_truncation(8)
    trained.save(str(tmp_path / TOKENIZER))
    assert [reader_of(tmp_path).pair(*pair) for pair in pairs] == expected
    assert [len(pair.prompts[0]) == CONTEXT for pair in expected] == [False, True]


@pytest.mark.parametrize(("length", "cut"), [(2 * CONTEXT, None), ((WINDOWS + 1) * CONTEXT, 0)])
async def test_best_window_scores(
    tmp_path: Path, length: int, cut: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bert(tmp_path)
    monkeypatch.setattr(cross_encoder, "Engine", lambda _: Engine())
    reader, query, document = reader_of(tmp_path), text("a river"), text("x" * length)
    prompts = reader.pair(query, document).prompts
    service = CrossEncoder(reader, WorkerSettings(model="m"))
    [job] = await service.jobs(EncodeRequest([Item(document, against=0)], queries=[query]))
    assert not isinstance(job, ItemError)
    vector = await job()
    assert 2 <= len(prompts) <= WINDOWS
    assert array_of(vector) == [len(prompts)]
    assert vector.tokens == sum(map(len, prompts)) <= BOUND
    assert vector.cut == cut


def test_megabytes_are_not_tokenized(tmp_path: Path) -> None:
    write_bert(tmp_path)
    reader = reader_of(tmp_path)
    watched: Any = Watched(reader._tokenizer)
    reader._tokenizer = watched
    pair = reader.pair(reader.query(text("why " * 1_000_000)), text("long " * 1_000_000))
    assert pair.cut
    assert len(pair.prompts) == WINDOWS
    assert watched.most < 100_000


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


def test_modern_bert_gets_no_token_types(tmp_path: Path) -> None:
    write_bert(tmp_path)
    edit_json(tmp_path / CONFIG, architectures=["ModernBertForSequenceClassification"])
    assert reader_of(tmp_path).pair(text("a river"), text("short")).extra is None


@pytest.mark.parametrize("positions", [1026, 514])
def test_roberta_positions_start_after_padding(tmp_path: Path, positions: int) -> None:
    config = published_config() | {"max_position_embeddings": positions}
    (tmp_path / CONFIG).write_text(json.dumps(config))
    assert read_config(tmp_path)[0] == positions - 2


def test_published_config_is_rewritten(tmp_path: Path) -> None:
    write_published(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    reader = reader_of(tmp_path)
    folder = Path(reader.engine_args["hf_config_path"])
    config = json.loads((folder / CONFIG).read_text())
    published = published_config()
    del published["auto_map"]
    assert config == published | {"model_type": "xlm-roberta"}
    assert reader.engine_args["model"] == str(tmp_path)
    del reader
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
        reader_of(tmp_path)


@pytest.mark.parametrize(("architecture", "model_type"), MODEL_TYPES.items())
def test_architectures_are_supported(architecture: str, model_type: str) -> None:
    assert architecture in _SEQUENCE_CLASSIFICATION_MODELS
    assert model_type in CONFIG_MAPPING
