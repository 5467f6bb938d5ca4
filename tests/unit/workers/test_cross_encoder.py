"""What a cross-encoder has vLLM read."""

import asyncio
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
from workers import cross_encoder
from workers.checkpoints.layout import CONFIG, TOKENIZER
from workers.checkpoints.variant import CheckpointError
from workers.cross_encoder import CrossEncoder
from workers.cross_encoder_config import MODEL_TYPES, read_config
from workers.settings import WorkerSettings
from workers.shared.contract import EncodeRequest, Failure, Frame, Item, Text, Vector
from workers.windows import WindowTokenizer

BOUND = 1024
"""WORKER_MAX_TOKENS, of which a document gets so many windows:"""
WINDOWS = BOUND // CONTEXT


class Llm:
    """Notes what it is to read; the score is the number of requests that wait beside this one."""

    dtype = "float32"

    def __init__(self, args: dict[str, Any]) -> None:
        self.args = args
        self.read: list[list[int]] = []
        self.extra: list[dict[str, Any] | None] = []
        self.waiting = 0

    def params(self, _: str, extra: dict[str, Any] | None) -> None:
        self.extra.append(extra)

    def shutdown(self) -> None: ...

    async def encode_tokens(self, token_ids: list[int], *_: object) -> Any:
        self.read.append(token_ids)
        self.waiting += 1
        await asyncio.sleep(0)
        return SimpleNamespace(outputs=SimpleNamespace(data=torch.tensor([float(self.waiting)])))


@pytest.fixture
def llm(monkeypatch: pytest.MonkeyPatch) -> Llm:
    stub = Llm({})

    def start(args: dict[str, Any]) -> Llm:
        stub.args = args
        return stub

    monkeypatch.setattr(cross_encoder, "Llm", start)
    return stub


async def frames(folder: Path, *texts: str, query: str = "a river") -> list[Frame]:
    service = CrossEncoder(folder, WorkerSettings(model="m", task="rerank", max_tokens=BOUND))
    documents = [Item(Text(text, "passage"), against=0) for text in texts]
    jobs = await service.jobs(EncodeRequest(documents, queries=[Text(query, "query")]))
    return [job if isinstance(job, Failure) else await job() for job in jobs]


async def test_padding_and_truncation_of_the_tokenizers_file_are_not_obeyed(tmp_path: Path, llm: Llm) -> None:
    write_bert(tmp_path)
    texts = ("short", "long " * 300)
    await frames(tmp_path, *texts)
    expected = llm.read.copy()
    llm.read.clear()
    trained = Tokenizer.from_file(str(tmp_path / TOKENIZER))
    trained.enable_padding(pad_token="<pad>", pad_id=1, length=64)
    trained.enable_truncation(8)
    trained.save(str(tmp_path / TOKENIZER))
    await frames(tmp_path, *texts)
    assert llm.read == expected
    assert [len(tokens) == CONTEXT for tokens in expected[:2]] == [False, True]


async def test_windows_run_together_and_the_best_score_counts(tmp_path: Path, llm: Llm) -> None:
    write_bert(tmp_path)
    [frame] = await frames(tmp_path, "x" * (2 * CONTEXT))
    assert isinstance(frame, Vector)
    count = len(llm.read)
    assert 2 <= count <= WINDOWS
    assert torch.frombuffer(bytearray(frame.data), dtype=torch.float32).tolist() == [count]
    assert frame.tokens == sum(map(len, llm.read))
    assert frame.cut is None


async def test_windows_of_a_document_are_bounded(tmp_path: Path, llm: Llm) -> None:
    write_bert(tmp_path)
    [frame] = await frames(tmp_path, "x" * (WINDOWS + 1) * CONTEXT)
    assert isinstance(frame, Vector)
    assert frame.cut == 0
    assert len(llm.read) == WINDOWS
    assert frame.tokens <= BOUND


class Counting:
    """A tokenizer that notes the longest text that it is given."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.longest = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def encode_batch(self, pairs: list[tuple[str, str]]) -> Any:
        self.longest = max(self.longest, *(len(text) for pair in pairs for text in pair))
        return self._tokenizer.encode_batch(pairs)


def test_megabytes_are_not_tokenised_whole(tmp_path: Path) -> None:
    write_bert(tmp_path)
    counting: Any = Counting(Tokenizer.from_file(str(tmp_path / TOKENIZER)))
    tokenizer = WindowTokenizer(counting, CONTEXT, BOUND)
    query = tokenizer.shorten("why " * 1_000_000)
    windows = tokenizer.windows(query, "long " * 1_000_000)
    assert windows.cut
    assert len(windows.token_ids) == WINDOWS
    assert counting.longest < 100_000


@pytest.mark.parametrize("length", [1, CONTEXT // 2, CONTEXT // 2 + 1, 10 * CONTEXT])
def test_windows_cover_a_document_beside_a_query_of_any_length(tmp_path: Path, length: int) -> None:
    write_bert(tmp_path)
    plain = Tokenizer.from_file(str(tmp_path / TOKENIZER))
    tokenizer = WindowTokenizer(Tokenizer.from_file(str(tmp_path / TOKENIZER)), CONTEXT, BOUND)
    query = tokenizer.shorten("y" * length)
    assert len(plain.encode(query, add_special_tokens=False)) == min(length, CONTEXT // 2)
    document = "".join(map(chr, range(33, 127))) * 2
    ids = plain.encode(document, add_special_tokens=False).ids
    windows = tokenizer.windows(query, document)
    assert windows.second_segment == min(length, CONTEXT // 2) + 2
    covered: list[int] = []
    for window in windows.token_ids:
        assert len(window) <= CONTEXT
        own = window[windows.second_segment : -1]
        overlap = next(
            size for size in range(len(own), -1, -1) if covered[len(covered) - size :] == own[:size]
        )
        assert not covered or 0 < overlap < len(own)
        covered += own[overlap:]
    assert covered == ids
    assert not windows.cut


@pytest.mark.parametrize(
    ("architecture", "token_types"),
    [("BertForSequenceClassification", True), ("ModernBertForSequenceClassification", False)],
)
async def test_only_bert_is_given_token_types(
    tmp_path: Path, llm: Llm, architecture: str, token_types: bool
) -> None:
    write_bert(tmp_path)
    config = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps(config | {"architectures": [architecture]}))
    await frames(tmp_path, "short")
    begin = Tokenizer.from_file(str(tmp_path / TOKENIZER)).encode("a river", "short").type_ids.index(1)
    assert llm.extra == [{"compressed_token_type_ids": begin} if token_types else None]


def test_windows_of_roberta_have_one_token_type(tmp_path: Path) -> None:
    write_published(tmp_path)
    tokenizer = WindowTokenizer(Tokenizer.from_file(str(tmp_path / TOKENIZER)), CONTEXT, BOUND)
    windows = tokenizer.windows("y", "x" * 2 * CONTEXT)
    assert len(windows.token_ids) > 1
    assert windows.second_segment is None


@pytest.mark.parametrize("positions", [1026, 514])
def test_roberta_numbers_positions_from_behind_the_padding_token(tmp_path: Path, positions: int) -> None:
    config = published_config() | {"max_position_embeddings": positions}
    (tmp_path / CONFIG).write_text(json.dumps(config))
    assert read_config(tmp_path).context == positions - 2


def test_a_published_config_is_rewritten_while_the_engine_runs(tmp_path: Path, llm: Llm) -> None:
    write_published(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    service = CrossEncoder(tmp_path, WorkerSettings(model="m", task="rerank"))
    folder = Path(llm.args["hf_config_path"])
    config = json.loads((folder / CONFIG).read_text())
    published = published_config()
    del published["auto_map"]
    assert config == published | {"model_type": "xlm-roberta"}
    assert llm.args["model"] == str(tmp_path)
    service.shutdown()
    assert not folder.exists()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_rewritten_config_is_removed_when_the_engine_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_published(tmp_path)
    seen: list[Path] = []

    def fail(args: dict[str, Any]) -> Llm:
        seen.append(Path(args["hf_config_path"]))
        assert seen[0].is_dir()
        raise RuntimeError("no engine")

    monkeypatch.setattr(cross_encoder, "Llm", fail)
    with pytest.raises(RuntimeError, match="no engine"):
        CrossEncoder(tmp_path, WorkerSettings(model="m", task="rerank"))
    assert not seen[0].exists()


def test_a_native_config_is_left_as_it_is(tmp_path: Path, llm: Llm) -> None:
    write_bert(tmp_path)
    CrossEncoder(tmp_path, WorkerSettings(model="m", task="rerank"))
    assert "hf_config_path" not in llm.args


@pytest.mark.parametrize(
    "changes",
    [
        {"architectures": ["NewForSequenceClassification"], "model_type": "new"},
        {"architectures": ["NewForSequenceClassification"], "auto_map": None},
        {"position_embedding_type": "rotary"},
    ],
)
def test_a_config_that_needs_remote_code_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    (tmp_path / CONFIG).write_text(json.dumps(published_config() | changes))
    with pytest.raises(CheckpointError, match=r"remote code is never run. Use .*XLMRoberta"):
        read_config(tmp_path)


@pytest.mark.parametrize(("architecture", "model_type"), MODEL_TYPES.items())
def test_vllm_and_transformers_know_each_architecture(architecture: str, model_type: str) -> None:
    assert architecture in _SEQUENCE_CLASSIFICATION_MODELS
    assert model_type in CONFIG_MAPPING
