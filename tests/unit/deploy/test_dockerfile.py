"""The Dockerfile: hadolint's rules, and what an image promises."""

import fnmatch
import re
import subprocess
import sys
from pathlib import Path

from tests.unit.deploy.manifests import DOCKERFILE, ROOT

TEXT = DOCKERFILE.read_text()


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_pip_checks_every_hash() -> None:
    installs = re.findall(r"pip install (.*?)(?: \\)?$", TEXT, re.MULTILINE)
    locks = [arguments for arguments in installs if ".lock" in arguments]
    wheels = {arguments for arguments in installs if ".lock" not in arguments}
    assert all(arguments.startswith("--require-hashes --no-deps -r /tmp/") for arguments in locks)
    assert wheels == {"--no-deps /wheel/*.whl"}
    for lock in re.findall(r"/tmp/(\S+\.lock)", TEXT):
        assert (DOCKERFILE.parent / lock).is_file()


def test_what_is_copied_is_not_ignored() -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    packages = [path.resolve().name for path in (ROOT / "triptych").iterdir() if path.is_symlink()]
    for name in ["pyproject.toml", "README.md", "LICENSE", "triptych", *packages]:
        # Load tests are not for images.
        assert any(fnmatch.fnmatch(name, pattern) for pattern in allowed) != (name == "loadtests")
