"""The variant of a shared pool: the base as it is, every adapter, and a merged projector for each."""

import json
import shutil

import pytest
import torch

from tests.exit_status import exit_status
from tests.unit.checkpoints.files import UPSTREAM, edit_json, edit_tensors, weights
from triptych.workers.checkpoints.__main__ import cli
from triptych.workers.checkpoints.adapters import adapter_key
from triptych.workers.checkpoints.layout import INDEX, CheckpointError
from triptych.workers.checkpoints.space import vector_space
from triptych.workers.checkpoints.variant import read_record, read_variant
from triptych.workers.shared.families import V4

ADAPTER = "adapters/code/adapter_model.safetensors"
CONFIG = "adapters/code/adapter_config.json"
KEY = adapter_key("model.layers.1.mlp.up_proj", "A")


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Read-only; in bfloat16."""
    out = tmp_path_factory.mktemp("shared")
    assert exit_status(cli, "merge", UPSTREAM, out, "--pool", "shared", "--pool", "code") == 0
    return out


@pytest.fixture
def shared(made, tmp_path):
    """One that a test may modify."""
    return shutil.copytree(made / "shared", tmp_path / "shared")


def test_base_is_unchanged_and_projectors_are_merged(upstream, made, merged):
    base, found = upstream.base(), weights(made / "shared")
    for name in [name for name in base if name.startswith("multi_vector_projector.")]:
        del base[name]
        for adapter in V4.adapters:
            theirs = weights(merged / adapter)[name].bfloat16()
            ours = found.pop(name.replace("projector.", f"projectors.{adapter}."))
            assert torch.equal(ours, theirs)
    assert found.keys() == base.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in base.items())
    index = json.loads((made / "shared" / INDEX).read_text())["weight_map"]
    assert index.keys() == weights(made / "shared").keys()


def test_adapters_are_those_of_the_source_in_plain_form(upstream, made):
    theirs = upstream.adapters()
    for adapter in V4.adapters:
        found = weights(made / "shared" / "adapters" / adapter)
        wanted = {
            key.replace(f".{adapter}.", ".").replace(".language_model", ""): tensor
            for key, tensor in theirs.items()
            if f".{adapter}." in key and "projector" not in key
        }
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[key], tensor) for key, tensor in wanted.items())


def test_scale_is_in_the_config_of_each_adapter(upstream, run, tmp_path):
    upstream.change_adapter_config(lora_alpha=8, use_rslora=True)
    assert run("merge", upstream.path, tmp_path / "out", "--pool", "shared")[0] == 0
    config = json.loads((tmp_path / "out" / "shared" / CONFIG).read_text())
    assert config["r"] == 32
    assert config["lora_alpha"] / config["r"] == pytest.approx(8 / 32**0.5)


def test_modules_of_another_scale_are_refused(upstream, refused):
    upstream.change_adapter_config(alpha_pattern={"k_proj": 8})
    assert "rank 32 and scale 0.25 of model.layers." in refused(upstream.path, "--pool", "shared")


def test_merged_pools_beside_it_stay_as_they_are(made, run, tmp_path):
    assert run("merge", UPSTREAM, tmp_path, "--pool", "code")[0] == 0
    assert read_record(tmp_path / "code") == read_record(made / "code")


def test_variant_names_its_adapters(made):
    variant = read_variant(made / "shared")
    assert (variant.task, variant.adapters, variant.rank) == ("shared", V4.adapters, 32)
    assert read_variant(made / "code").adapters == ()


def test_digest_covers_the_adapters(shared, run):
    assert run("verify", shared, "--full")[0] == 0
    edit_tensors(shared / ADAPTER, lambda tensors: tensors[KEY][0, 0].add_(1))
    status, out, _ = run("verify", shared, "--full")
    assert status == 1
    assert "DOES NOT MATCH" in out


def test_scale_of_an_adapter_changes_the_space(shared):
    def space():
        variant = read_variant(shared)
        options = {"dtype": "bfloat16", "quantization": None, "adapters": variant.adapters}
        return vector_space(shared, variant.digest, **options)

    before = space()
    edit_json(shared / CONFIG, lora_alpha=8)
    assert space() != before


def test_adapter_that_does_not_fit_is_refused(shared):
    other = KEY.replace("mlp", "extra")
    edit_tensors(shared / ADAPTER, lambda tensors: tensors.update({other: tensors.pop(KEY)}))
    with pytest.raises(CheckpointError, match=f"other half: {KEY}(.|\n)*unexpected: {other}"):
        read_variant(shared)


@pytest.mark.parametrize("name", [ADAPTER, CONFIG])
def test_missing_file_of_an_adapter_is_named(shared, name):
    (shared / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        read_variant(shared)


def test_projector_is_required_for_every_adapter(shared):
    index = json.loads((shared / INDEX).read_text())
    name = "multi_vector_projectors.code.weight"
    edit_tensors(shared / index["weight_map"].pop(name), lambda tensors: tensors.pop(name))
    (shared / INDEX).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=name):
        read_variant(shared)
