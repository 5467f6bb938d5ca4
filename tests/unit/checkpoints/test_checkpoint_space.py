"""What changes the vector space."""

import pytest

from tests.unit.checkpoints.files import edit_json
from triptych.workers.checkpoints import layout
from triptych.workers.checkpoints.space import vector_space
from triptych.workers.checkpoints.variant import read_variant


def space_of(folder, dtype="float32", quantization=None):
    return vector_space(folder, read_variant(folder).digest, dtype=dtype, quantization=quantization)


def test_copy_has_the_same_space(merged, variant):
    edit_json(variant / layout.CONFIG, _name_or_path="x", transformers_version="x", torch_dtype="x")
    assert space_of(variant) == space_of(merged / "code")


def test_weights_are_read_without_record(merged):
    computed = vector_space(merged / "code", None, dtype="float32", quantization=None)
    assert len(computed) == 16
    assert computed == space_of(merged / "code")


@pytest.mark.parametrize("option", [{"dtype": "bfloat16"}, {"quantization": "fp8"}])
def test_dtype_changes_space(merged, option):
    assert space_of(merged / "code", **option) != space_of(merged / "code")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        (layout.CONFIG, {"rms_norm_eps": 0.5}),
        (layout.PREPROCESSOR, {"image_mean": [0, 0, 0]}),
        (layout.TOKENIZER, {"version": "other"}),
    ],
)
def test_files_change_space(merged, variant, name, values):
    edit_json(variant / name, **values)
    assert space_of(variant) != space_of(merged / "code")
