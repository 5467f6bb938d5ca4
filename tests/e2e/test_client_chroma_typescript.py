"""Chroma's client and function for Jina from npm, of which only the address is changed."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.test_client_chroma import DOCUMENTS
from tests.e2e.test_requests import assert_same, embed
from triptych.loadtests.server_processes import LOOPBACK, Deployment, Process, free_port

SOURCES = Path(__file__).with_name("typescript")
SECONDS = 300

pytestmark = pytest.mark.skipif(
    not (shutil.which("node") and shutil.which("npm")), reason="needs node 20 and npm"
)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the script and the packages of its lock file."""
    folder = Path(shutil.copytree(SOURCES, tmp_path_factory.mktemp("npm") / "typescript"))
    command = ["npm", "ci", "--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS)
    if done.returncode:
        pytest.skip(f"npm cannot install the packages: {done.stderr[-500:]}")
    return folder


@pytest.fixture(scope="module")
def chroma(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a Chroma server."""
    folder, port = tmp_path_factory.mktemp("chroma"), free_port()
    start = ["-c", "from chromadb.cli.cli import app; app()", "run", "--path", str(folder / "data")]
    environment = {"ANONYMIZED_TELEMETRY": "False"}
    server = Process([*start, "--host", LOOPBACK, "--port", str(port)], environment, folder / "log")
    try:
        server.wait_ready(f"http://{LOOPBACK}:{port}/api/v2/heartbeat")
        yield port
    finally:
        server.kill()


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        # The task and the length are the alias's: of a v3 client, and of one that knows neither.
        ({"modelName": "jina-embeddings-v3"}, {"task": "retrieval.passage", "dimensions": 1024}),
        ({"modelName": "jina-embeddings-v2-base-en"}, {"task": "retrieval.passage", "dimensions": 768}),
        (
            {"modelName": "jina-embeddings-v3", "task": "separation", "dimensions": 256, "truncate": True},
            {"task": "text-matching", "dimensions": 256},
        ),
        (
            {"modelName": "jina-embeddings-v3", "task": "retrieval.passage", "lateChunking": True},
            {"task": "retrieval.passage", "dimensions": 1024, "late_chunking": True},
        ),
        (
            {"modelName": "jina-embeddings-v4", "normalized": True, "embeddingType": "float"},
            {"task": "text-matching"},
        ),
    ],
    ids=["v3", "v2", "separation", "late chunking", "v4"],
)
def test_collection_holds_the_vectors_of_the_alias(
    options: dict[str, Any],
    asked: dict[str, Any],
    packages: Path,
    chroma: int,
    deployment: Deployment,
    api: httpx.Client,
) -> None:
    job = {
        "chroma": chroma,
        "url": f"{deployment.url}/v1/embeddings",
        "options": options,
        "documents": DOCUMENTS,
        "query": DOCUMENTS[2],
    }
    command = ["node", "collection.mjs", json.dumps(job)]
    done = subprocess.run(command, cwd=packages, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    right = embed(api, model="jina-embeddings-v4", input=DOCUMENTS, **asked)
    assert_same(found["vectors"], right)
    if not options.get("lateChunking"):
        assert found["nearest"][0] == "2"
