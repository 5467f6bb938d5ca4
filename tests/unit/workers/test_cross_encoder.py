"""What a cross-encoder has vLLM read."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from tests.cross_encoders import CONTEXT, write_bert
from workers import cross_encoder
from workers.checkpoints.layout import TOKENIZER
from workers.contract import EncodeRequest, Failure, Item, Text
from workers.cross_encoder import CrossEncoder
from workers.settings import WorkerSettings


class Llm:
    """Notes what it is to read."""

    def __init__(self, _: dict[str, Any]) -> None:
        self.read: list[list[int]] = []

    def params(self, *_: object) -> None: ...

    async def encode_tokens(self, token_ids: list[int], *_: object) -> Any:
        self.read.append(token_ids)
        return SimpleNamespace(outputs=SimpleNamespace(data=torch.ones(1)))


async def read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The tokens of a short document and of a long one."""
    llm = Llm({})
    monkeypatch.setattr(cross_encoder, "Llm", lambda _: llm)
    service = CrossEncoder(folder, WorkerSettings(model="m", task="rerank"))
    documents = [Item(Text(text, "passage"), against=0) for text in ("short", "long " * 300)]
    for job in await service.jobs(EncodeRequest(documents, queries=[Text("a river", "query")])):
        assert not isinstance(job, Failure)
        await job()
    return llm.read


async def test_padding_and_truncation_of_the_tokenizers_file_are_not_obeyed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bert(tmp_path)
    expected = await read(tmp_path, monkeypatch)
    trained = Tokenizer.from_file(str(tmp_path / TOKENIZER))
    trained.enable_padding(pad_token="<pad>", pad_id=1, length=64)
    trained.enable_truncation(8)
    trained.save(str(tmp_path / TOKENIZER))
    assert await read(tmp_path, monkeypatch) == expected
    assert [len(tokens) == CONTEXT for tokens in expected] == [False, True]
