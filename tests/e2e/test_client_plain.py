"""No client at all: requests and curl, the README's line among them."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import httpx
import numpy as np
import pytest
import requests

from tests.e2e.conftest import MAX_TOKENS
from tests.e2e.test_requests import assert_same, embed, vectors_of
from triptych.loadtests.server_processes import Deployment

README = Path(__file__).parents[2] / "README.md"
ADDRESS = "http://127.0.0.1:8080"

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")


def curl(*arguments: str) -> str:
    """What curl prints; fails when it does."""
    run = subprocess.run(["curl", "-sS", "--noproxy", "*", *arguments], capture_output=True, timeout=60)
    assert run.returncode == 0, run.stderr
    return run.stdout.decode()


def test_requests_need_nothing_but_a_body(deployment: Deployment, api: httpx.Client) -> None:
    body = {"input": ["one", "two"], "task": "retrieval.query"}
    reply = requests.post(f"{deployment.url}/v1/embeddings", json=body, timeout=60)
    assert_same(vectors_of(reply.json()), embed(api, **body))


def test_requests_raises_for_what_is_wrong(deployment: Deployment) -> None:
    reply = requests.post(f"{deployment.url}/v1/embeddings", json={}, timeout=60)
    with pytest.raises(requests.HTTPError, match="422"):
        reply.raise_for_status()
    assert reply.json()["errors"][0]["field"] == "body -> input"


@pytest.mark.parametrize("encoding", ["identity", "gzip, deflate, br"])
def test_nothing_is_compressed(deployment: Deployment, encoding: str) -> None:
    reply = requests.post(
        f"{deployment.url}/v1/embeddings",
        json={"input": "a text"},
        headers={"Accept-Encoding": encoding},
        timeout=60,
    )
    assert reply.headers.get("content-encoding") is None
    assert len(reply.json()["data"]) == 1


@pytest.mark.parametrize("late_chunking", [False, True])
def test_what_was_cut_is_named_in_a_header(deployment: Deployment, late_chunking: bool) -> None:
    def ask(*texts: str) -> requests.Response:
        body = {"input": texts, "truncate": True, "late_chunking": late_chunking}
        return requests.post(f"{deployment.url}/v1/embeddings", json=body, timeout=120)

    long = "long" + " and long" * MAX_TOKENS
    cut = ask("short", long)
    assert cut.status_code == 200, cut.text
    assert cut.headers["x-truncated-inputs"] == "1"
    assert len(vectors_of(cut.json())) == 2
    assert "x-truncated-inputs" not in ask("short", "as well").headers
    # Only in a document does the length of one leave nothing of the next.
    after = ask("short", long, "and what comes after it")
    if late_chunking:
        assert (after.status_code, after.json()["code"]) == (400, "INPUT_TOKEN_LIMIT_EXCEEDED")
    else:
        assert after.headers["x-truncated-inputs"] == "1"


@needs_curl
def test_the_readmes_line_runs(deployment: Deployment, api: httpx.Client) -> None:
    [command] = re.findall(r"^    (curl .*?'[^']*')$", README.read_text(), re.MULTILINE | re.DOTALL)
    name, *arguments = shlex.split(command.replace(ADDRESS, deployment.url))
    assert name == "curl"
    assert f"{deployment.url}/v1/embeddings" in arguments
    body = json.loads(arguments[arguments.index("-d") + 1])
    reply = json.loads(curl(*arguments))
    assert_same(vectors_of(reply), embed(api, **body))


@needs_curl
def test_curls_own_type_of_content_does_not_matter(deployment: Deployment) -> None:
    # Without -H curl says that the body is a form.
    reply = json.loads(curl(f"{deployment.url}/v1/embeddings", "-d", '{"input": "a text"}'))
    assert len(reply["data"]) == 1


@needs_curl
def test_curl_writes_a_matrix_that_numpy_loads(
    deployment: Deployment, api: httpx.Client, tmp_path: Path
) -> None:
    body = {"input": ["one", "two", "three"], "dimensions": 128}
    file, headers = tmp_path / "vectors.npy", tmp_path / "headers"
    curl(
        f"{deployment.url}/v1/embeddings",
        *("-H", "Accept: application/x-npy", "-d", json.dumps({**body, "embed_dtype": "float16"})),
        *("-o", str(file), "-D", str(headers)),
    )
    matrix = np.load(file)
    assert (matrix.shape, matrix.dtype) == ((3, 128), np.float16)
    assert_same(matrix, embed(api, **body))
    usage = api.post("/v1/embeddings", json=body).json()["usage"]
    written = headers.read_text().lower()
    assert f"x-usage-total-tokens: {usage['total_tokens']}\n" in written.replace("\r", "")
    assert f"x-usage-prompt-tokens: {usage['prompt_tokens']}\n" in written.replace("\r", "")
