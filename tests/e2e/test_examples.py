"""Every example runs as its README says, and so does the command in the main README."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.e2e.test_requests import embed
from tests.fakes.hang_guard import GUARD_SECONDS
from tests.vectors import cosine
from triptych.loadtests.server_processes import Deployment

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def run(deployment: Deployment, name: str, *arguments: object) -> list[str]:
    """The lines that an example prints."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *map(str, arguments)],
        env=os.environ | {"TRIPTYCH_URL": deployment.url},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_folder_is_indexed_once_and_searched(deployment: Deployment, tmp_path: Path) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "cape.md").write_text("# Cape\n\nThe lighthouse stands on the northern cape.\n")
    Image.new("RGB", (56, 56), "orange").save(folder / "lamp.png")
    indexed, *found = run(deployment, "search_folder.py", folder, "lighthouse")
    assert "3 paragraphs and images" in indexed
    assert sorted(line.split()[1] for line in found) == ["cape.md:", "cape.md:", "lamp.png:"]
    assert run(deployment, "search_folder.py", folder, "lighthouse") == found


def test_folder_without_documents_is_named(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "search_folder.py", tmp_path, "lighthouse"],
        cwd=EXAMPLES.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"{tmp_path} has no")


def test_chroma_finds_documents(deployment: Deployment) -> None:
    assert len(run(deployment, "chroma_collection.py", "lighthouse")) == 3


def test_late_chunking_is_compared(deployment: Deployment) -> None:
    _, *rows = run(deployment, "late_chunking.py")
    assert [row.split()[0] != row.split()[1] for row in rows] == [False, True, True]


def test_openai_client_is_moved(deployment: Deployment) -> None:
    assert run(deployment, "openai_client.py")[0].startswith("256 values")


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_readme_command_runs(deployment: Deployment, api: httpx.Client) -> None:
    [command] = re.findall(
        r"^    (curl .*?'[^']*')$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    arguments = shlex.split(command.replace("http://127.0.0.1:8080", deployment.url))
    reply = json.loads(subprocess.check_output([*arguments, "-sS", "--noproxy", "*"], timeout=GUARD_SECONDS))
    [vector] = [np.array(entry["embedding"], np.float32) for entry in reply["data"]]
    [right] = embed(api, **json.loads(arguments[arguments.index("-d") + 1]))
    assert cosine(vector, right) > 0.99999


def test_all_examples_are_tested() -> None:
    text = Path(__file__).read_text()
    assert all(path.name in text for path in EXAMPLES.glob("*.py"))
