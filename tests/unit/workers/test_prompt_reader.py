"""Prompts of jina-reranker-m0, and which folders are its checkpoints."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.exit_status import exit_status
from tests.unit.checkpoints.files import edit_tensors
from tests.unit.workers.services import Watched
from triptych.workers.checkpoints.__main__ import cli
from triptych.workers.checkpoints.layout import SINGLE, CheckpointError
from triptych.workers.checkpoints.variant import identify, read_variant
from triptych.workers.cross_encoder import Content
from triptych.workers.item_error import ItemError
from triptych.workers.prompt_reader import IMAGE_TOKENS, SCORE_TOKEN, PromptReader
from triptych.workers.settings import WorkerSettings
from triptych.workers.shared.contract import Image, Text
from triptych.workers.shared.families import RERANKER_M0
from triptych.workers.shared.strict_settings import SettingsError, read_settings

[POOL] = RERANKER_M0.pools
IMAGE = Image(b"pixels")
PLACEHOLDER = 2391
"""<|image_pad|>"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranker") / "m0"
    assert exit_status(cli, "tiny", "--nano", folder, "--model", RERANKER_M0.name) == 0
    return folder


def reader(folder: Path, **settings: Any) -> PromptReader:
    return PromptReader(read_variant(folder), POOL, WorkerSettings(model="m", **settings))


def text(length: int) -> Text:
    """A text of `length` tokens."""
    return Text("~" * length, "passage")


def test_document_comes_before_query_and_score_token(checkpoint: Path) -> None:
    read = reader(checkpoint)
    pair = read.pair(Text("asked", "query"), Text("said", "passage"))
    [[*prompt, score]] = pair.prompts
    assert read._tokenizer.decode(prompt) == "**Document**:\nsaid\n**Query**:\nasked"
    assert score == SCORE_TOKEN
    assert (pair.images, pair.cut) == ([], False)


@pytest.mark.parametrize(
    ("query", "document", "cut"),
    [
        (text(9), text(9), False),
        (text(100), text(50_000), True),
        (text(50_000), text(9), True),
        (text(50_000), text(50_000), True),
        (IMAGE, text(50_000), True),
        (text(50_000), IMAGE, True),
        (IMAGE, IMAGE, False),
    ],
)
@pytest.mark.parametrize("max_tokens", [2048, 32_768])
def test_prompt_fits_the_context(
    max_tokens: int, query: Content, document: Content, cut: bool, checkpoint: Path
) -> None:
    read = reader(checkpoint, max_tokens=max_tokens)
    assert read.max_tokens == min(max_tokens, RERANKER_M0.positions)
    pair = read.pair(read.query(query), document)
    [prompt] = pair.prompts
    images = sum(isinstance(part, Image) for part in (query, document))
    assert prompt.count(PLACEHOLDER) == images
    length = len(prompt) + images * (IMAGE_TOKENS - 1)
    assert length <= read.max_tokens
    assert pair.cut == cut
    if cut:
        assert length > read.max_tokens - 512


def test_placeholder_in_a_text_beside_an_image_is_refused(checkpoint: Path) -> None:
    pair = reader(checkpoint).pair
    for query, document in (
        (IMAGE, Text("<|image_pad|>", "passage")),
        (Text("<|image_pad|>", "query"), IMAGE),
    ):
        with pytest.raises(ItemError, match="must not contain") as refused:
            pair(query, document)
        assert refused.value.query == isinstance(query, Text)
    assert not pair(Text("<|image_pad|>", "query"), Text("", "passage")).images


def test_megabytes_are_not_tokenized(checkpoint: Path) -> None:
    read = reader(checkpoint, max_tokens=2048)
    watched: Any = Watched(read._tokenizer)
    read._tokenizer = watched
    assert read.pair(read.query(text(1_000_000)), text(1_000_000)).cut
    assert watched.most < 200_000


def test_context_has_room_for_two_images() -> None:
    with pytest.raises(SettingsError, match="WORKER_MAX_TOKENS: the pool rerank-m0 needs 2048 or more"):
        read_settings(WorkerSettings, model="m", task=POOL, max_tokens=2047)


def test_published_folder_is_served_as_it_is(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert identify(checkpoint) == ("published", "", RERANKER_M0)
    variant = read_variant(checkpoint)
    assert (variant.family, variant.task, variant.digest) == (RERANKER_M0, POOL, None)
    assert exit_status(cli, "verify", checkpoint) == 0
    assert exit_status(cli, "merge", checkpoint, tmp_path / "out") == 1
    assert "needs no merge" in capsys.readouterr().err


def test_damaged_folder_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(checkpoint, tmp_path / "damaged")
    words = {"model.embed_tokens.weight": torch.zeros(2432, 32)}
    edit_tensors(damaged / SINGLE, lambda tensors: tensors.update(words))
    with pytest.raises(CheckpointError, match=r"hidden_size 64, .* \[2432, 32\]"):
        read_variant(damaged)
    edit_tensors(damaged / SINGLE, lambda tensors: tensors.pop("score.2.weight"))
    with pytest.raises(CheckpointError, match=r"has no score\.2\.weight"):
        read_variant(damaged)
