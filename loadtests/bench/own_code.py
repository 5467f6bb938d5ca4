"""Writes the vectors of a variant as the model's own code gives them in float32: transformers, unchunked, one
input at a time.

    python -m loadtests.bench.own_code VARIANT TEXTS.json IMAGE OUT.npy
"""

import json
import sys
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

from triptych.workers.prompts import IMAGE_PROMPT
from triptych.workers.shared.families import V4


def main(folder: str, texts: str, image: str, out: str) -> None:
    """One unit vector for each text, as queries, then one for the image."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    processor = AutoProcessor.from_pretrained(folder)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).to(device)

    def states(**inputs: Any) -> tuple[list[int], torch.Tensor]:
        encoded = processor(**inputs, return_tensors="pt").to(device)
        with torch.inference_mode():
            return encoded.input_ids[0].tolist(), model.model(**encoded).last_hidden_state[0]

    with open(texts) as file:
        means = [states(text=[V4.prefixes["query"] + text])[1].mean(0) for text in json.load(file)]
    with Image.open(image) as picture:
        ids, hidden = states(text=[IMAGE_PROMPT], images=[picture.convert("RGB")])
    start, end = (
        ids.index(processor.tokenizer.convert_tokens_to_ids(f"<|vision_{name}|>"))
        for name in ("start", "end")
    )
    means.append(hidden[start : end + 1].mean(0))
    np.save(out, torch.nn.functional.normalize(torch.stack(means), dim=1).cpu().numpy())


if __name__ == "__main__":
    main(*sys.argv[1:])
