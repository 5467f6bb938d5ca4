"""Merged weights against W + (alpha / r) B A computed in float64."""

import json
import math
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tests.unit.checkpoints.files import UPSTREAM, weights
from triptych.workers.checkpoints import merge
from triptych.workers.checkpoints.adapters import adapter_key
from triptych.workers.checkpoints.layouts.v4 import adapted_modules
from triptych.workers.checkpoints.variant import read_record, read_variant
from triptych.workers.shared.contract import POOLS
from triptych.workers.shared.families import V4

LAYERS = 2


def base_name(module):
    return f"{module.replace('.language_model', '')}.weight"


def expected(upstream, task, scale=lambda module: 1.0):
    base, adapters = upstream.base(), upstream.adapters()
    for module in adapted_modules(LAYERS):
        a = adapters[adapter_key(module, "A", f".{task}")].double()
        b = adapters[adapter_key(module, "B", f".{task}")].double()
        base[base_name(module)] = base[base_name(module)].double() + scale(module) * torch.matmul(b, a)
    return base


def assert_merged(found, wanted, rtol):
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name].double(), tensor.double(), rtol=rtol, atol=1e-7, msg=name)


@pytest.mark.parametrize("task", POOLS)
def test_weights_are_base_plus_product(upstream, merged, task):
    assert_merged(weights(merged / task), expected(upstream, task), rtol=1e-5)


def test_source_dtype_is_rounded_once(run, merged, tmp_path):
    assert run("merge", UPSTREAM, tmp_path)[0] == 0
    for task in POOLS:
        exact, found = weights(merged / task), weights(tmp_path / task)
        for name, tensor in found.items():
            assert (tensor.dtype, exact[name].dtype) == (torch.bfloat16, torch.float32)
            assert torch.equal(tensor, exact[name].bfloat16()), name


def test_shards_are_kept(merged):
    def shards(folder):
        return {file.name: list(safe_open(file, "pt").keys()) for file in folder.glob("model-*.safetensors")}

    assert len(shards(UPSTREAM)) == 2
    assert shards(merged / "code") == shards(UPSTREAM)
    index = json.loads((merged / "code" / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == {name: file for file, names in shards(UPSTREAM).items() for name in names}


def test_rslora_and_patterns_set_scale(upstream, run, tmp_path):
    module = "model.language_model.layers.1.mlp.up_proj"

    def halve(tensors):
        for task in POOLS:
            a, b = adapter_key(module, "A", f".{task}"), adapter_key(module, "B", f".{task}")
            tensors[a], tensors[b] = tensors[a][:16].contiguous(), tensors[b][:, :16].contiguous()

    upstream.change_adapters(halve)
    upstream.change_adapter_config(
        use_rslora=True, rank_pattern={"layers.1.mlp.up_proj": 16}, alpha_pattern={"k_proj": 8}
    )
    assert run("merge", upstream.path, tmp_path, "--pool", "code", "--dtype", "float32")[0] == 0

    def scale(name):
        alpha = 8 if name.endswith("k_proj") else 32
        return alpha / math.sqrt(16 if name == module else 32)

    assert_merged(weights(tmp_path / "code"), expected(upstream, "code", scale), rtol=1e-5)


def test_new_style_names_merge_alike(upstream, run, merged, tmp_path):
    def rename(name):
        if name.startswith("visual."):
            return f"model.{name}"
        return name.replace("model.", "model.language_model.", 1) if name.startswith("model.") else name

    upstream.rename_base(rename)
    assert run("merge", upstream.path, tmp_path, "--pool", "code", "--dtype", "float32")[0] == 0
    old = weights(merged / "code")
    found = weights(tmp_path / "code")
    assert found.keys() == {rename(name) for name in old}
    assert all(torch.equal(found[rename(name)], tensor) for name, tensor in old.items())


def test_blocks_do_not_change_weights(run, merged, tmp_path, monkeypatch):
    # 256 columns: three rows at a time, and the last block shorter; 640 x 256 is copied in pieces too.
    monkeypatch.setattr(merge, "BLOCK_VALUES", 3 * 256 + 10)
    assert run("merge", UPSTREAM, tmp_path, "--pool", "code", "--dtype", "float32")[0] == 0
    assert_merged(weights(tmp_path / "code"), weights(merged / "code"), rtol=1e-5)


def test_nested_text_config_merges_alike(upstream, run, tmp_path):
    file = upstream.path / "config.json"
    config = json.loads(file.read_text())
    text = {"num_hidden_layers", "hidden_size", "rope_scaling", "rope_theta", "vocab_size", "torch_dtype"}
    nested = {key: value for key, value in config.items() if key not in text}
    file.write_text(json.dumps({**nested, "text_config": {key: config[key] for key in text}}))
    assert run("merge", upstream.path, tmp_path, "--pool", "code", "--dtype", "float32")[0] == 0
    assert read_variant(tmp_path / "code").dimensions == 256
    found = json.loads((tmp_path / "code" / "config.json").read_text())
    assert found["torch_dtype"] == "float32"
    # A nested dtype would win over the one above.
    assert found["text_config"].keys() == text - {"torch_dtype"}


def test_single_file_source(upstream, run, merged, tmp_path):
    save_file(upstream.base(), upstream.path / "model.safetensors")
    for file in [*upstream.path.glob("model-*"), upstream.path / "model.safetensors.index.json"]:
        file.unlink()
    assert run("merge", upstream.path, tmp_path, "--pool", "code", "--dtype", "float32")[0] == 0
    assert read_variant(tmp_path / "code").digest == read_variant(merged / "code").digest
    assert len({read_variant(merged / task).digest for task in POOLS}) == 3


def test_config_is_ready_for_vllm(upstream, run, tmp_path):
    remote = {"AutoModel": "modeling_jina_embeddings_v4.JinaEmbeddingsV4Model"}
    names = ("config.json", "preprocessor_config.json", "tokenizer_config.json")
    for name in names:
        upstream.change_json(name, auto_map=remote, processor_class="JinaEmbeddingsV4Processor")
    upstream.change_json("preprocessor_config.json", max_pixels=12_845_056)
    assert run("merge", upstream.path, tmp_path, "--pool", "code")[0] == 0
    config, processor, tokenizer = (json.loads((tmp_path / "code" / name).read_text()) for name in names)
    assert config["architectures"] == [V4.architecture]
    assert (config["model_type"], config["torch_dtype"]) == ("qwen2_5_vl", "bfloat16")
    assert config["tie_word_embeddings"]
    assert config["rope_scaling"]["mrope_section"] == [4, 6, 6]
    assert (processor["min_pixels"], processor["max_pixels"]) == (3136, 602112)
    assert processor["processor_class"] == tokenizer["processor_class"] == "Qwen2_5_VLProcessor"
    assert not any("auto_map" in part for part in (config, processor, tokenizer))


def test_hub_id_is_fetched_and_recorded(upstream, run, tmp_path, monkeypatch):
    asked = []

    def snapshot_download(repository, revision, allow_patterns):
        asked.append((repository, revision))
        return shutil.copytree(upstream.path, tmp_path / "snapshots" / revision)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    upstream.change_adapter_config(lora_alpha=64)
    assert run("merge", "jinaai/jina-embeddings-v4", tmp_path / "out", "--pool", "code")[0] == 0
    revision = "853c867b65b749f3c3c72a06868140d842e04f06"
    assert asked == [("jinaai/jina-embeddings-v4", revision)]
    variant, record = read_variant(tmp_path / "out" / "code"), read_record(tmp_path / "out" / "code")
    assert (variant.source, variant.revision) == ("jinaai/jina-embeddings-v4", revision)
    assert (variant.dtype, variant.dimensions, variant.multivector_dimensions) == ("bfloat16", 256, 128)
    assert (record.task, record.r, record.alpha) == ("code", 32, 64)


def read_all(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_same_output_is_kept(run, tmp_path):
    assert run("merge", UPSTREAM, tmp_path)[0] == 0
    before = read_all(tmp_path)
    status, out, _ = run("merge", UPSTREAM, tmp_path)
    assert (status, out.count("nothing to do")) == (0, 3)
    assert read_all(tmp_path) == before


@pytest.mark.parametrize("what", ["source", "dtype", "cut short"])
def test_other_output_needs_force(upstream, run, tmp_path, what):
    out = tmp_path / "out"
    options = ["merge", upstream.path, out, "--pool", "code"]
    assert run(*options)[0] == 0
    if what == "source":
        upstream.change_adapters(
            lambda its: its[adapter_key("model.language_model.layers.0.mlp.up_proj", "B", ".code")].neg_()
        )
    elif what == "dtype":
        options += ["--dtype", "float32"]
    else:
        shard = out / "code" / "model-00001-of-00002.safetensors"
        shard.write_bytes(shard.read_bytes()[:-1])
    before = read_all(out)
    status, _, error = run(*options)
    assert status == 1
    assert "--force" in error
    assert read_all(out) == before
    assert run(*options, "--force")[0] == 0
    assert read_all(out) != before
    assert [path.name for path in out.iterdir()] == ["code"]
    read_variant(out / "code")


def test_variants_as_json(run, merged, tmp_path):
    status, out, err = run("merge", UPSTREAM, tmp_path, "--pool", "code", "--dtype", "float32", "--json")
    assert status == 0
    [variant] = json.loads(out)
    assert variant["path"] == str(tmp_path / "code")
    assert variant["digest"] == json.loads((merged / "code" / "variant.json").read_text())["digest"]
    assert "code: " in err
