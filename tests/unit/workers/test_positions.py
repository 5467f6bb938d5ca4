"""A text's positions against vLLM's own way of finding them."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm.model_executor.models.qwen2_5_vl import Qwen2_5_VLForConditionalGeneration

from workers.plugin.model import TriptychEmbeddings


def no_images(features: list[Any]) -> Iterator[Any]:
    assert not features
    return iter(())


@pytest.mark.parametrize("length", [1, 2, 21, 512])
def test_the_positions_of_a_text_are_those_of_vllm(length: int) -> None:
    tokens = list(range(length))
    model: Any = SimpleNamespace(iter_mm_grid_thw=no_images)
    expected, behind = Qwen2_5_VLForConditionalGeneration.get_mrope_input_positions(model, tokens, [])
    positions, ours = TriptychEmbeddings.get_mrope_input_positions(model, tokens, [])
    assert positions.dtype == expected.dtype
    assert torch.equal(positions, expected)
    assert ours == behind == 0
