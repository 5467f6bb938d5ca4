"""Every example runs as its README says."""

import os
import subprocess
import sys
from pathlib import Path

from PIL import Image

from triptych.loadtests.server_processes import Deployment

EXAMPLES = Path(__file__).parents[2] / "examples"


def start(name: str, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    argv, env = [sys.executable, EXAMPLES / name, *map(str, arguments)], os.environ | variables
    return subprocess.run(argv, env=env, cwd=EXAMPLES.parent, capture_output=True, text=True)


def run(deployment: Deployment, name: str, *arguments: object) -> list[str]:
    """The lines that an example prints."""
    done = start(name, *arguments, TRIPTYCH_URL=deployment.url)
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
    done = start("search_folder.py", tmp_path, "lighthouse")
    assert done.returncode == 1
    assert done.stderr.startswith(f"{tmp_path} has no")


def test_chroma_finds_documents(deployment: Deployment) -> None:
    assert len(run(deployment, "chroma_collection.py", "lighthouse")) == 3


def test_late_chunking_is_compared(deployment: Deployment) -> None:
    _, *rows = run(deployment, "late_chunking.py")
    assert [row.split()[0] != row.split()[1] for row in rows] == [False, True, True]


def test_openai_client_is_moved(deployment: Deployment) -> None:
    assert run(deployment, "openai_client.py")[0].startswith("256 values")


def test_all_examples_are_tested() -> None:
    text = Path(__file__).read_text()
    assert all(path.name in text for path in EXAMPLES.glob("*.py"))
