"""The model's own code as a server: transformers in float32, each input in one pass.

    python -m loadtests.bench.own_code VARIANT PORT

`POST /` takes a JSON list of queries, one batch; `POST /image` takes an image. Both return unit vectors,
float32 [inputs, dimensions].
"""

import io
import json
import sys

import torch
from aiohttp import web
from PIL import Image
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

from triptych.workers.prompts import IMAGE_PROMPT
from triptych.workers.shared.contract import READY_PATH
from triptych.workers.shared.families import V4


def app(folder: str) -> web.Application:
    """The server of the model in `folder`, on a GPU if there is one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    processor = AutoProcessor.from_pretrained(folder)
    tokenizer = processor.tokenizer
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).to(device).model

    async def texts(request: web.Request) -> web.Response:
        queries = [V4.prefixes["query"] + text for text in json.loads(await request.read())]
        encoded = tokenizer(queries, return_tensors="pt", padding=True).to(device)
        return means(encoded, encoded.attention_mask)

    async def image(request: web.Request) -> web.Response:
        picture = Image.open(io.BytesIO(await request.read())).convert("RGB")
        encoded = processor(text=[IMAGE_PROMPT], images=[picture], return_tensors="pt").to(device)
        start, end = (
            encoded.input_ids == tokenizer.convert_tokens_to_ids(f"<|vision_{name}|>")
            for name in ("start", "end")
        )
        # From the start token to the end token.
        return means(encoded, start.cumsum(1) - end.cumsum(1) + end.int())

    def means(encoded: dict[str, torch.Tensor], mask: torch.Tensor) -> web.Response:
        with torch.inference_mode():
            states = model(**encoded).last_hidden_state
            vectors = torch.nn.functional.normalize((states * mask[..., None]).sum(1), dim=1)
        return web.Response(body=vectors.cpu().numpy().tobytes())

    async def ready(request: web.Request) -> web.Response:
        return web.Response()

    made = web.Application(client_max_size=1 << 26)
    made.add_routes([web.post("/", texts), web.post("/image", image), web.get(READY_PATH, ready)])
    return made


if __name__ == "__main__":
    web.run_app(app(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]), access_log=None)
