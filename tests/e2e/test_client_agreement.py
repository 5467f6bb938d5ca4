"""One text, one task: the vector is the same, whichever client asks for it."""

import base64
import json
import shutil
import subprocess
import warnings
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import requests
from chromadb.utils.embedding_functions import JinaEmbeddingFunction

from tests.e2e.test_requests import assert_same, embed
from triptych.loadtests.server_processes import Deployment
from triptych.workers.shared.families import V4

TEXT = "Swifts sleep while they fly."
TASK = "retrieval.passage"


def chroma(url: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        function = JinaEmbeddingFunction(api_key="any", model_name=V4.name, task=TASK)
    function._api_url = url
    return function([TEXT])[0]


def qdrant_guide(url: str) -> Any:
    body = {"input": [TEXT], "model": V4.name, "dimensions": 1024, "task_type": TASK}
    return requests.post(url, json=body, timeout=60).json()["data"][0]["embedding"]


def openai_sdk(url: str) -> Any:
    with openai.OpenAI(base_url=url.removesuffix("/embeddings"), api_key="any") as client:
        reply = client.embeddings.create(model=V4.name, input=TEXT, extra_body={"task": TASK})
    return reply.data[0].embedding


def curl(url: str) -> Any:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl")
    body = json.dumps({"input": TEXT, "task": TASK, "encoding_format": "base64"})
    reply = subprocess.check_output(["curl", "-sS", "--noproxy", "*", url, "-d", body], timeout=60)
    return np.frombuffer(base64.b64decode(json.loads(reply)["data"][0]["embedding"]), "<f4")


def _body(**fields: object) -> Callable[[str], Any]:
    def ask(url: str) -> Any:
        return requests.post(url, json=fields, timeout=60).json()["data"][0]["embedding"]

    return ask


CLIENTS: dict[str, Callable[[str], Any]] = {
    "chromadb": chroma,
    "qdrant guide": qdrant_guide,
    "openai": openai_sdk,
    "curl": curl,
    "langchain": _body(input=[TEXT], model=f"{V4.name}:{TASK}"),
    "llama-index": _body(input=[TEXT], model=V4.name, encoding_type="float", task=TASK),
    "haystack": _body(input=[TEXT], model=V4.name, task=TASK, late_chunking=False),
    "litellm": _body(input=[{"text": TEXT}], model=f"jinaai/{V4.name}:{TASK}"),
    "weaviate": _body(input=[TEXT], model=f"{V4.name}:{TASK}", dimensions=256),
    "elasticsearch": _body(input=[TEXT], model=V4.name, task=TASK, embedding_type="float"),
    "agno": _body(input=TEXT, model=V4.name, task=TASK, embedding_type="float", user="somebody"),
    "one part": _body(input=[TEXT], task=TASK, late_chunking=True),
}


@pytest.mark.parametrize("client", CLIENTS)
def test_one_text_has_one_vector(deployment: Deployment, api: httpx.Client, client: str) -> None:
    [right] = embed(api, input=TEXT, task=TASK)
    vector = np.array(CLIENTS[client](f"{deployment.url}/v1/embeddings"), np.float32)
    assert len(vector) in (256, 1024, 2048)
    assert_same([vector], [right[: len(vector)]])
