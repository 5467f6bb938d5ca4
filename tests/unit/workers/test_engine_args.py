"""What vLLM is started with."""

from pathlib import Path

import pytest
from vllm.engine.arg_utils import AsyncEngineArgs

from tests.integration.conftest import UPSTREAM
from workers.checkpoints.__main__ import main as checkpoints
from workers.checkpoints.variant import CheckpointError, Variant, read_variant
from workers.cross_encoder import cross_encoder_args
from workers.engine import context_of, engine_args, resolve_folder
from workers.settings import WorkerSettings

POSITIONS = 128_000


@pytest.fixture(scope="module")
def variant(tmp_path_factory: pytest.TempPathFactory) -> Variant:
    folder = tmp_path_factory.mktemp("variant")
    assert checkpoints(["merge", str(UPSTREAM), str(folder), "--task", "code"]) == 0
    return read_variant(folder / "code")


@pytest.mark.parametrize(
    ("asked", "context"),
    [(32_768, 32_768), (POSITIONS - 1, POSITIONS - 1), (POSITIONS, POSITIONS - 1), (200_000, POSITIONS - 1)],
)
def test_vllm_has_a_token_more_than_the_longest_input(variant: Variant, asked: int, context: int) -> None:
    settings = WorkerSettings(model="m", max_tokens=asked)
    assert variant.positions == POSITIONS
    assert context_of(variant, settings) == context
    config = AsyncEngineArgs(**engine_args(variant, settings)).create_model_config()
    assert config.max_model_len == context + 1


def test_a_text_of_a_cross_encoder_is_never_cut_into_steps() -> None:
    args = cross_encoder_args(Path("m"), 4096, WorkerSettings(model="m", batch_tokens=512))
    assert not args["enable_chunked_prefill"]
    assert args["max_num_batched_tokens"] == args["max_model_len"] == 4096


@pytest.mark.parametrize("model", ["/no/such/folder", "variants/../retrieval", "a folder", "~/variants/code"])
def test_a_mistyped_folder_is_said_to_be_none(model: str) -> None:
    with pytest.raises(CheckpointError, match=r"is no folder.* set WORKER_MODEL"):
        resolve_folder(model, None)
