"""The arguments that vLLM is started with."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.utils import filter_repo_objects
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.platforms import current_platform

from tests.exit_status import exit_status
from tests.integration.conftest import UPSTREAM
from triptych.workers.checkpoints.__main__ import cli
from triptych.workers.checkpoints.hub import resolve_folder
from triptych.workers.checkpoints.layout import CheckpointError
from triptych.workers.checkpoints.variant import Variant, read_variant
from triptych.workers.engine_args import common_args, context_of, cross_encoder_args, engine_args
from triptych.workers.settings import WorkerSettings
from triptych.workers.shared.families import V3, V4, V5_NANO, V5_SMALL, Family
from triptych.workers.shared.strict_settings import SettingsError, read_settings

POSITIONS = 128_000


@pytest.fixture(scope="module")
def variant(tmp_path_factory: pytest.TempPathFactory) -> Variant:
    folder = tmp_path_factory.mktemp("variant")
    assert exit_status(cli, "merge", UPSTREAM, folder, "--pool", "code") == 0
    return read_variant(folder / "code")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Variant:
    folder = tmp_path_factory.mktemp("variant")
    assert exit_status(cli, "merge", UPSTREAM, folder, "--pool", "shared") == 0
    return read_variant(folder / "shared")


@pytest.mark.parametrize(
    ("asked", "positions", "context"),
    [
        (4096, POSITIONS, 4096),
        (32_768, POSITIONS, V4.positions),
        (200_000, POSITIONS, V4.positions),
        (32_768, 4097, 4096),
        (32_768, None, V4.positions),
    ],
)
def test_context_is_one_more_than_longest_input(
    variant: Variant, asked: int, positions: int | None, context: int
) -> None:
    settings = WorkerSettings(model="m", max_tokens=asked)
    assert variant.positions == POSITIONS > V4.positions
    variant = replace(variant, positions=positions)
    assert context_of(variant, settings) == context
    config = AsyncEngineArgs(**engine_args(variant, settings)).create_model_config()
    assert config.max_model_len == context + 1


@pytest.mark.parametrize("family", [V5_SMALL, V5_NANO, V3], ids=lambda family: family.key)
def test_longest_input_of_an_encoder_fits_one_step(family: Family, tmp_path: Path) -> None:
    source, pool = tmp_path / "source", family.pools[0]
    assert exit_status(cli, "tiny", "--nano", source, "--model", family.name) == 0
    assert exit_status(cli, "merge", source, tmp_path, "--pool", pool) == 0
    variant, settings = read_variant(tmp_path / pool), WorkerSettings(model="m", batch_tokens=512)
    args = engine_args(variant, settings)
    assert context_of(variant, settings) == family.positions == args["max_model_len"] - 1
    assert args["enable_chunked_prefill"] == family.causal
    assert args["max_num_batched_tokens"] == (512 if family.causal else args["max_model_len"])
    assert "mm_processor_kwargs" not in args


def test_cross_encoder_pair_fits_one_step() -> None:
    args = cross_encoder_args(Path("m"), 4096, WorkerSettings(model="m", batch_tokens=512))
    assert not args["enable_chunked_prefill"]
    assert args["max_num_batched_tokens"] == args["max_model_len"] == 4096


@pytest.mark.parametrize(("rank", "slots"), [(32, 32), (20, 32), (33, 64)])
def test_shared_variant_holds_all_adapters(shared: Variant, rank: int, slots: int) -> None:
    args = engine_args(replace(shared, rank=rank), WorkerSettings(model="m"))
    assert args["hf_overrides"]["projectors"] == shared.family.adapters
    assert (args["enable_lora"], args["max_loras"], args["max_lora_rank"]) == (True, 3, slots)


def test_rank_over_that_of_vllm_is_refused(shared: Variant) -> None:
    with pytest.raises(CheckpointError, match="rank 1000, vLLM takes at most 512"):
        engine_args(replace(shared, rank=1000), WorkerSettings(model="m"))


def test_float32_adapters_are_refused_on_a_gpu(shared: Variant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(current_platform), "is_cpu", lambda _: False)
    with pytest.raises(CheckpointError, match="WORKER_DTYPE=bfloat16"):
        engine_args(shared, WorkerSettings(model="m", dtype="float32"))
    assert engine_args(shared, WorkerSettings(model="m"))["enable_lora"]


def test_own_arguments_are_refused(
    variant: Variant, shared: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = WorkerSettings(model="m", gpu_memory_utilization=0.5, kv_cache_gib=1)
    ours = {*engine_args(variant, settings), *engine_args(shared, settings)}
    ours |= {*cross_encoder_args(Path("m"), 4096, settings)}
    # Statistics change no vector.
    for name in ours - {"disable_log_stats"}:
        monkeypatch.setenv("WORKER_ENGINE_ARGS", json.dumps({name: None}))
        with pytest.raises(SettingsError, match=rf"WORKER_ENGINE_ARGS: {name} is set by the worker"):
            read_settings(WorkerSettings, model="m")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"enable_prefix_caching": True, "seed": 1}, "enable_prefix_caching is set by the worker. Remove"),
        ({"max_model_len": 4096}, "max_model_len is set by the worker (WORKER_MAX_TOKENS)"),
        ({"trust_remote_code": True}, "trust_remote_code is set"),
        ({"kv_cache_dtype": "fp8"}, "kv_cache_dtype is set"),
        ({"load_format": "dummy"}, "dummy weights are random"),
    ],
)
def test_arguments_that_change_vectors_are_refused(
    given: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKER_ENGINE_ARGS", json.dumps(given))
    with pytest.raises(SettingsError, match=re.escape(says)):
        read_settings(WorkerSettings, model="m")


def test_other_arguments_reach_vllm(variant: Variant) -> None:
    given = {"seed": 7, "disable_log_stats": False, "load_format": "safetensors"}
    settings = WorkerSettings(model="m", engine_args=given)
    assert engine_args(variant, settings).items() >= given.items()


def test_download_leaves_out_formats_that_are_not_served(monkeypatch: pytest.MonkeyPatch) -> None:
    served = ["config.json", "tokenizer.json", "merges.txt", "model.safetensors", "pytorch_model.bin"]

    def download(name: str, revision: str | None, allow_patterns: list[str] | None) -> str:
        published = [*served, "onnx/model.onnx", "onnx/model.onnx_data", "tf_model.h5", "README.md"]
        assert list(filter_repo_objects(published, allow_patterns=allow_patterns)) == served
        return "/cache"

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert resolve_folder("org/model", None) == Path("/cache")


@pytest.mark.parametrize("model", ["/no/such/folder", "variants/../retrieval", "a folder", "~/variants/code"])
def test_mistyped_folder_is_refused(model: str) -> None:
    with pytest.raises(CheckpointError, match="WORKER_MODEL"):
        resolve_folder(model, None)


@pytest.mark.parametrize(
    ("cpu", "given", "share"),
    [
        (False, {"kv_cache_gib": 2}, 0.01),
        (False, {"kv_cache_gib": 2, "gpu_memory_utilization": 0.3}, 0.3),
        (False, {}, None),
        (True, {"kv_cache_gib": 2}, None),
    ],
)
def test_given_cache_size_needs_no_gpu_share(
    cpu: bool, given: dict[str, Any], share: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(current_platform), "is_cpu", lambda _: cpu)
    args = common_args(WorkerSettings(model="m", **given))
    assert args.get("gpu_memory_utilization") == share
    assert args.get("kv_cache_memory_bytes") == (2 << 30 if given else None)
