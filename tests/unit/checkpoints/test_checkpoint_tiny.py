"""Tiny checkpoints have the upstream layout, real shapes and a plausible tokenizer."""

import json
import math

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoProcessor, Qwen2_5_VLForConditionalGeneration

from tests.exit_status import exit_status
from tests.unit.checkpoints.files import UPSTREAM, weights
from triptych.workers.checkpoints.__main__ import cli
from triptych.workers.checkpoints.folders import load_json
from triptych.workers.checkpoints.layouts import v4
from triptych.workers.checkpoints.tiny import FILES, FULL
from triptych.workers.checkpoints.variant import identify, read_variant
from triptych.workers.shared.contract import POOLS
from triptych.workers.shared.families import V4


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    out = tmp_path_factory.mktemp("tiny") / "upstream"
    assert exit_status(cli, "tiny", str(out)) == 0
    return out


@pytest.fixture(scope="module")
def variants(tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("variants")
    assert exit_status(cli, "merge", str(tiny), str(out)) == 0
    return out


def test_layout_equals_upstream(tiny):
    def names(folder):
        paths = {str(path.relative_to(folder)) for path in folder.rglob("*")}
        return {name for name in paths if not name.startswith(("reference", "README", "model-"))}

    assert identify(tiny).kind == "upstream"
    assert names(tiny) == names(UPSTREAM)
    assert weights(tiny).keys() == weights(UPSTREAM).keys()
    assert weights(tiny / "adapters").keys() == weights(UPSTREAM / "adapters").keys()
    assert len(list(tiny.glob("model-*.safetensors"))) == 3
    assert sum(path.stat().st_size for path in tiny.rglob("*")) < 100e6


def test_shapes_are_real(tiny, variants):
    config = json.loads((tiny / "config.json").read_text())
    assert (config["num_attention_heads"], config["num_key_value_heads"]) == (16, 2)
    assert config["rope_scaling"]["mrope_section"] == [16, 24, 24]
    for task in POOLS:
        variant = read_variant(variants / task)
        assert (variant.dimensions, variant.multivector_dimensions, variant.dtype) == (2048, 128, "bfloat16")


def test_seed_determines_the_bytes(tmp_path, run):
    for name, seed in [("a", 7), ("b", 7), ("c", 8)]:
        assert run("tiny", "--nano", "--seed", seed, tmp_path / name)[0] == 0
    files = [path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*")]
    for file in files:
        first, second, other = ((tmp_path / name / file).read_bytes() for name in "abc")
        assert first == second
        assert (first != other) == (file.suffix == ".safetensors")


def test_existing_folder_is_kept(tmp_path, run):
    (tmp_path / "file").touch()
    status, _, error = run("tiny", tmp_path, "--nano")
    assert status == 1
    assert "exists" in error
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_tokens_are_plausible(tiny):
    tokenizer = Tokenizer.from_file(str(tiny / "tokenizer.json"))

    def count(text):
        return len(tokenizer.encode(f"Query: {text}", add_special_tokens=False).ids)

    # As with the real tokenizer: API.md.
    assert sum(map(count, ["cash is king", "yes I do like cat", "morning"])) == 15
    assert 5 <= count("浜辺に沈む美しい夕日") <= 14
    for text in ["\U0001f600 café\n\n\tx", "غروب", "日"]:
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_special_tokens_match_config(tiny, variants):
    config = AutoConfig.from_pretrained(variants / "code")
    processor = AutoProcessor.from_pretrained(variants / "code")
    tokenizer = processor.tokenizer
    # As in the published tokenizer, they follow all other ids.
    special = json.loads((tiny / "added_tokens.json").read_text())
    assert sorted(special.values()) == list(range(len(tokenizer) - len(special), len(tokenizer)))
    assert tokenizer.convert_tokens_to_ids(list(special)) == list(special.values())
    assert config.image_token_id == tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert config.vision_start_token_id == tokenizer.convert_tokens_to_ids("<|vision_start|>")
    assert config.vision_end_token_id == tokenizer.convert_tokens_to_ids("<|vision_end|>")
    assert len(tokenizer) <= config.get_text_config().vocab_size
    assert tokenizer.pad_token == "<|endoftext|>"
    assert processor.image_processor.size["longest_edge"] == 602112


def test_full_size_has_the_shapes_of_the_published_model():
    """Qwen2.5-VL-3B's, in transformers; without memory for the weights."""
    full = load_json(FILES / V4.name / FULL)
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(AutoConfig.for_model(**full))
    expected = sorted(tuple(value.shape) for value in model.model.parameters())
    files = v4.tiny(V4, full).items()
    base = [pair for file, shapes in files if not file.startswith("adapters") for pair in shapes]
    written = [shape for name, shape in base if not name.startswith("multi_vector")]
    assert sorted(written) == expected
    assert sum(map(math.prod, written)) == 3_754_622_976
