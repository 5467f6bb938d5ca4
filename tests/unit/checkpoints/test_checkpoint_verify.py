"""What `verify` reports, and which folders a worker may load."""

import json

import pytest

from tests.unit.checkpoints.files import edit_json
from triptych.loadtests.bench.stock import stock_copy
from triptych.workers.checkpoints.layout import CONFIG, INDEX, PREPROCESSOR, TOKENIZER, CheckpointError
from triptych.workers.checkpoints.variant import read_variant


@pytest.fixture
def verify(run):
    def verify(folder, *options):
        status, out, _ = run("verify", folder, "--json", *options)
        report = json.loads(out)
        assert status == (0 if report["servable"] else 1)
        return report

    return verify


def test_variant_can_be_served(variant, verify):
    report = verify(variant)
    assert (report["kind"], report["task"], report["dtype"]) == ("variant", "code", "float32")
    assert (report["dimensions"], report["multivector_dimensions"]) == (256, 128)
    assert report["servable"]
    assert report["digest_matches"] is None
    assert verify(variant, "--full")["digest_matches"] is True


def test_full_detects_one_changed_byte(variant, verify):
    file = variant / "model-00001-of-00002.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert verify(variant)["servable"]
    report = verify(variant, "--full")
    assert report["digest_matches"] is False
    assert "merge again" in report["why_not"]


def test_official_folder_can_be_served(merged, tmp_path, verify):
    """Like jinaai/jina-embeddings-v4-vllm-*: merged, without variant.json and projector."""
    official = stock_copy(merged / "code", tmp_path / "official")
    report = verify(official)
    assert (report["kind"], report["task"], report["multivector_dimensions"]) == ("official", None, None)
    assert report["servable"]
    variant = read_variant(official)
    assert (variant.task, variant.digest) == (None, None)
    assert (variant.dimensions, variant.dtype) == (256, "float32")


@pytest.mark.parametrize("content", ["nothing", "a file", "another model", "no folder"])
def test_other_folders_are_refused(tmp_path, verify, content):
    folder = tmp_path / ("missing" if content == "no folder" else "")
    if content == "a file":
        (folder / "notes.txt").write_text("x")
    elif content == "another model":
        (folder / "config.json").write_text('{"model_type": "bert", "architectures": null}')
    report = verify(folder, "--full")
    assert (report["kind"], report["servable"]) == ("not a checkpoint", False)


@pytest.mark.parametrize("name", [CONFIG, TOKENIZER, PREPROCESSOR, INDEX, "model-00002-of-00002.safetensors"])
@pytest.mark.parametrize("how", ["missing", "empty"])
def test_damaged_file_is_refused(variant, verify, name, how):
    (variant / name).unlink()
    if how == "empty":
        (variant / name).touch()
    report = verify(variant, "--full")
    assert not report["servable"]
    assert name in report["why_not"] or name == INDEX


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("variant.json", {"task": "retrieval.query"}),
        ("variant.json", {"format": 2}),
        ("variant.json", {"dimensions": 128}),
        ("variant.json", {"multivector_dimensions": 64}),
        ("variant.json", {"dtype": "bfloat16"}),
        ("variant.json", {"surprise": 1}),
        ("config.json", {"architectures": ["Qwen2_5_VLForConditionalGeneration"]}),
        ("config.json", {"hidden_size": 128}),
    ],
)
def test_contradicting_record_is_refused(variant, file, values):
    edit_json(variant / file, **values)
    with pytest.raises(CheckpointError, match=file):
        read_variant(variant)


def test_wrong_index_is_refused(variant):
    weight_map = json.loads((variant / INDEX).read_text())["weight_map"]
    weight_map["model.norm.weight"] = "model-00002-of-00002.safetensors"
    edit_json(variant / INDEX, weight_map=weight_map)
    with pytest.raises(CheckpointError, match=r"disagree about model\.norm\.weight"):
        read_variant(variant)


@pytest.mark.parametrize(
    ("lost", "kind", "says"),
    [(None, "upstream", "merge"), ("adapters/adapter_model.safetensors", "incomplete", "adapter")],
)
def test_unmerged_folder_is_refused(upstream, verify, lost, kind, says):
    if lost:
        (upstream.path / lost).unlink()
    report = verify(upstream.path)
    assert (report["kind"], report["dtype"], report["servable"]) == (kind, "bfloat16", False)
    assert says in report["why_not"]


def test_missing_files_are_named(variant, verify):
    (variant / "variant.json").unlink()
    assert "variant.json" in verify(variant)["why_not"]
    for shard in variant.glob("model-*"):
        shard.unlink()
    report = verify(variant)
    assert report["kind"] == "incomplete"
    assert "model-00001-of-00002.safetensors, model-00002-of-00002.safetensors" in report["why_not"]
