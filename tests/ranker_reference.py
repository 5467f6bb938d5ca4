"""Scores of jina-reranker-m0 in transformers, from a folder in its layout.

Follows `compute_score` in `modeling.py` of jinaai/jina-reranker-m0 for one pair.
"""

import io
import json
from pathlib import Path

import torch
from PIL import Image as Pillow
from safetensors.torch import load_file
from torch import nn
from transformers import AutoProcessor, Qwen2VLConfig, Qwen2VLModel

from triptych.workers.shared.contract import Image, Text

# The models are so small that more threads only wait for each other.
torch.set_num_threads(1)

NAMES = {"model.": "language_model.", "visual.": "visual."}
IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"


class RankerReference:
    """Scores pairs with a longest prompt of `max_length` tokens, in float32."""

    def __init__(self, folder: Path, max_length: int) -> None:
        config = json.loads((folder / "config.json").read_text())
        weights = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
        self._model = Qwen2VLModel(Qwen2VLConfig(**config)).float().eval()
        self._model.load_state_dict(
            {
                ours + name.removeprefix(published): tensor
                for published, ours in NAMES.items()
                for name, tensor in weights.items()
                if name.startswith(published)
            }
        )
        hidden = config["hidden_size"]
        self._head = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self._head.load_state_dict(
            {
                name.removeprefix("score."): tensor
                for name, tensor in weights.items()
                if name.startswith("score.")
            }
        )
        self._processor = AutoProcessor.from_pretrained(folder, max_pixels=602_112, min_pixels=3136)
        self._max_length = max_length

    def token_ids(self, query: Text | Image, document: Text | Image) -> list[int]:
        """The prompt, with all tokens of images."""
        return list(self._inputs(query, document)["input_ids"][0].tolist())

    @torch.inference_mode()
    def score(self, query: Text | Image, document: Text | Image) -> float:
        """The score, between 0 and 1."""
        states = self._model(**self._inputs(query, document)).last_hidden_state
        return float(torch.sigmoid(self._head(states[:, -1]) - 2.65))

    def _inputs(self, query: Text | Image, document: Text | Image) -> dict[str, torch.Tensor]:
        longest = max(self._max_length - 512, 512)
        read = IMAGE if isinstance(document, Image) else document.text
        if isinstance(document, Text):
            ids = self._processor.tokenizer(read, truncation=True, max_length=longest)["input_ids"]
            if len(ids) >= longest:
                read = self._processor.tokenizer.decode(ids)
        asked = IMAGE if isinstance(query, Image) else query.text
        images = [
            Pillow.open(io.BytesIO(part.data)).convert("RGB")
            for part in (document, query)
            if isinstance(part, Image)
        ]
        batch = self._processor(
            text=[f"**Document**:\n{read}\n**Query**:\n{asked}"],
            images=images or None,
            return_tensors="pt",
            truncation=True,
            max_length=self._max_length - 1,
        )
        added = {"input_ids": 100, "attention_mask": 1, "mm_token_type_ids": 0}
        return {
            name: torch.cat([tensor, torch.full((1, 1), added[name], dtype=tensor.dtype)], dim=1)
            if name in added
            else tensor
            for name, tensor in batch.items()
        }
