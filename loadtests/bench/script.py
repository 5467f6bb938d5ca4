"""The model under plain transformers, as a script would run it; HTTP only hands over the batches.

    python -m loadtests.bench.script VARIANT PORT

`POST /` takes a JSON list of texts and returns their unit vectors, float32 [texts, dimensions].
"""

import json
import sys

import torch
from aiohttp import web
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from triptych.workers.shared.contract import READY_PATH
from triptych.workers.shared.families import V4


def app(folder: str) -> web.Application:
    """The script, with the model of a folder in float32."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).model

    async def encode(request: web.Request) -> web.Response:
        texts = [V4.prefixes["query"] + text for text in json.loads(await request.read())]
        encoded = tokenizer(texts, return_tensors="pt", padding=True)
        with torch.inference_mode():
            states = model(**encoded).last_hidden_state
            mask = encoded.attention_mask[..., None]
            means = (states * mask).sum(1) / mask.sum(1)
            vectors = torch.nn.functional.normalize(means, dim=1)
        return web.Response(body=vectors.numpy().tobytes())

    async def ready(request: web.Request) -> web.Response:
        return web.Response()

    made = web.Application(client_max_size=1 << 26)
    made.router.add_post("/", encode)
    made.router.add_get(READY_PATH, ready)
    return made


if __name__ == "__main__":
    web.run_app(app(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]), access_log=None)
