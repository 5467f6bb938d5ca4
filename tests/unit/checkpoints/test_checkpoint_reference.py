"""Merged weights in transformers give the vectors of the published code with unmerged adapters."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

from workers.shared.contract import POOLS

PREFIX = {"query": "Query: ", "passage": "Passage: "}
PROMPT = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Describe the image.<|im_end|>\n"


@pytest.fixture(scope="module")
def reference(data):
    return np.load(data / "reference.npz")


@pytest.fixture(scope="module", params=POOLS)
def served(request, merged, weights):
    """A task, and a function from the processor's arguments to token ids and hidden states [tokens, d]."""
    folder = merged / request.param
    processor = AutoProcessor.from_pretrained(folder)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    tensors = weights(folder)

    def hidden(**inputs):
        inputs = processor(return_tensors="pt", **inputs)
        with torch.no_grad():
            states = model.model(**inputs).last_hidden_state[0]
        return inputs["input_ids"][0].tolist(), states

    def project(states):
        return states @ tensors["multi_vector_projector.weight"].T + tensors["multi_vector_projector.bias"]

    return request.param, hidden, project


def cosines(found, wanted):
    found, wanted = np.atleast_2d(found.numpy()).astype(np.float64), np.atleast_2d(wanted)
    assert found.shape == wanted.shape
    return (found * wanted).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(wanted, axis=1)


@pytest.mark.parametrize("role", PREFIX)
def test_texts_match_reference(served, reference, data, role):
    task, hidden, project = served
    texts = json.loads((data / "reference_texts.json").read_text())
    for number, text in enumerate(texts[:6]):
        key = f"text/{task}/{role}/{number}"
        ids, states = hidden(text=[PREFIX[role] + text])
        assert len(ids) == np.size(reference[f"{key}/tokens"]) or len(ids) == reference[f"{key}/tokens"]
        assert cosines(states.mean(0), reference[f"{key}/dense"]).min() >= 0.99999
        if number < 5:
            assert cosines(project(states), reference[f"{key}/multi"]).min() >= 0.99999


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_images_match_reference(served, reference, data, number):
    task, hidden, project = served
    image = Image.open(data / f"reference_image_{number}.png").convert("RGB")
    ids, states = hidden(text=[PROMPT], images=[image])
    key = f"image/{task}/{number}"
    # vision_start and vision_end, by their ids in the fixture.
    first, last = ids.index(609), ids.index(610)
    assert cosines(states[first : last + 1].mean(0), reference[f"{key}/dense"]).min() >= 0.99999
    if number < 3:
        assert cosines(project(states), reference[f"{key}/multi"]).min() >= 0.99999
