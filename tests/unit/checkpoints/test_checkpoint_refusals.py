"""Sources that cannot be merged are refused before anything is written, and the error names the cause."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from triptych.workers.checkpoints import merge
from triptych.workers.checkpoints.adapters import adapter_key


@pytest.fixture
def refused(upstream, refused):
    return partial(refused, upstream.path)


UP = adapter_key("model.language_model.layers.1.mlp.up_proj", "A", ".code")
DOWN = adapter_key("model.language_model.layers.0.mlp.down_proj", "B", ".retrieval")
MISSING = (
    "model.language_model.layers.0.self_attn.q_proj",
    "model.language_model.layers.1.self_attn.q_proj",
    "multi_vector_projector",
)


@pytest.mark.parametrize(
    "key",
    [
        "base_model.model.visual.blocks.0.attn.qkv.lora_A.code.weight",
        "base_model.model.model.language_model.layers.0.mlp.up_proj.lora_A.chat.weight",
        "base_model.model.model.language_model.layers.0.mlp.up_proj.lora_magnitude_vector.code.weight",
    ],
)
def test_unexpected_keys_are_named(upstream, refused, key):
    upstream.change_adapters(lambda tensors: tensors.update({key: torch.zeros(32, 256)}))
    assert f"unexpected: {key}" in refused("--pool", "retrieval")


def test_wrong_shapes_are_all_named(upstream, refused):
    def change(tensors):
        tensors[UP] = tensors[UP][:16].contiguous()
        tensors[DOWN] = tensors[DOWN][:-1].contiguous()

    upstream.change_adapters(change)
    error = refused("--pool", "code")
    assert f"{UP} is [16, 256], should be [32, 256]" in error
    assert f"{DOWN} is [255, 32], should be [256, 32]" in error


def test_adapter_file_with_one_task(upstream, run, refused, tmp_path):
    def only_code(tensors):
        for key in [key for key in tensors if ".code." not in key]:
            del tensors[key]

    upstream.change_adapters(only_code)
    error = refused()
    assert error.count("missing: ") == 2 * 2 * 15
    assert ".code." not in error
    assert run("merge", upstream.path, tmp_path / "out", "--pool", "code")[0] == 0


@pytest.mark.parametrize(
    "setting",
    [
        {"use_dora": True},
        {"peft_type": "LOHA"},
        {"fan_in_fan_out": True},
        {"bias": "all"},
        {"modules_to_save": ["norm"]},
        {"layer_replication": [[0, 2]]},
        {"use_qalora": True},
        {"alora_invocation_tokens": [1, 2]},
        {"arrow_config": {"top_k": 3}},
        {"init_lora_weights": "pissa_niter_4"},
        {"r": None},
        {"r": 0},
        {"lora_alpha": "high"},
    ],
)
def test_unsupported_settings_are_refused(upstream, refused, setting):
    upstream.change_adapter_config(**setting)
    assert next(iter(setting)) in refused()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_values_are_refused(upstream, refused, value):
    upstream.change_adapters(lambda tensors: tensors[UP].__setitem__((3, 5), value))
    assert "model.layers.1.mlp.up_proj.weight" in refused("--pool", "code")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8])
def test_quantized_base_is_refused(upstream, refused, dtype):
    file = upstream.path / "model-00002-of-00002.safetensors"
    save_file({name: tensor.to(dtype) for name, tensor in load_file(file).items()}, file)
    assert "quantized" in refused()


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "model-00002-of-00002.safetensors",
        "adapters/adapter_config.json",
        "adapters/adapter_model.safetensors",
    ],
)
@pytest.mark.parametrize("how", ["missing", "cut short"])
def test_damaged_sources_are_refused_before_weights_are_written(upstream, refused, monkeypatch, name, how):
    monkeypatch.delattr(merge, "write_shard")
    file = upstream.path / name
    file.write_bytes(file.read_bytes()[:-2])
    if how == "missing":
        file.unlink()
    assert name.split("/")[-1] in refused()


def test_full_disk_is_detected_first(refused, monkeypatch):
    monkeypatch.setattr(merge.shutil, "disk_usage", lambda path: SimpleNamespace(free=10**6))
    assert "MB" in refused()


@pytest.mark.parametrize(
    ("source", "says"), [("/no/such/folder", "neither"), ("a/b/c", "neither"), ("org/model", "hf download")]
)
def test_missing_source_says_what_to_do(run, tmp_path, monkeypatch, source, says):
    def unreachable(*_, **__):
        raise OSError("no route")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    status, _, error = run("merge", source, tmp_path / "out")
    assert status == 1
    assert says in error


def test_wrong_kinds_of_source_are_refused(merged, run, refused, tmp_path):
    assert "revision" in refused("--revision", "main")
    assert "needs no merge" in run("merge", merged / "code", tmp_path / "out")[2]


def test_base_without_embeddings_is_refused(upstream, refused):
    upstream.rename_base(lambda name: name.replace("embed_tokens", "embeddings"))
    assert "embed_tokens.weight" in refused()


def test_missing_keys_are_all_named(upstream, refused):
    halves = [adapter_key(module, half, ".code") for module in MISSING for half in ("A", "B")]
    upstream.change_adapters(lambda tensors: [tensors.pop(key) for key in (*halves, DOWN)])
    error = refused()
    assert all(f"missing: {key}" in error for key in halves)
    assert f"missing, without its other half: {DOWN}" in error
    assert error.count("\n  missing") == len(halves) + 1
    upstream.change_json("config.json", num_hidden_layers=3)
    assert "layers.2.self_attn.q_proj" in refused()
