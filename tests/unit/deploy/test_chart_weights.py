"""The Helm chart: which weights are merged, and which workers wait for them."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.unit.deploy.manifests import pods_of, rendered, rendered_with
from triptych.deploy.kubernetes.helm import CHART
from triptych.workers.shared.families import FAMILIES

pytestmark = pytest.mark.usefixtures("needs_helm")


def test_weights_are_merged_once(tmp_path: Path) -> None:
    [job] = pods_of(rendered("--values", CHART / "examples" / "demo.yaml"), "Job")
    calls = tmp_path / "calls"
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    python.chmod(0o755)
    command = [part.replace("/models", str(tmp_path / "models")) for part in job.container["command"]]
    (tmp_path / "models" / "code").mkdir(parents=True)
    (tmp_path / "models" / "code" / "variant.json").touch()
    path = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(command, check=True, env=path)
    _, merge = calls.read_text().splitlines()
    assert merge.endswith("--pool retrieval --pool text-matching")
    for pool in ("retrieval", "text-matching"):
        (tmp_path / "models" / pool).mkdir()
        (tmp_path / "models" / pool / "variant.json").touch()
    calls.unlink()
    subprocess.run(command, check=True, env=path)
    assert not calls.exists()


def test_another_source_is_another_job() -> None:
    names = set()
    for source in ("jinaai/one", "/models/upstream"):
        value = f"weights.enabled=true,weights.sources.v4={source}"
        names |= {pod.name for pod in pods_of(rendered("--set", value), "Job")}
    assert len(names) == 2


def test_each_model_is_merged_from_its_source(tmp_path: Path) -> None:
    pools: dict[str, object] = {"v5-small.retrieval": {}, "rerank": {}, "rerank-m0": {}}
    [job] = pods_of(rendered_with(tmp_path, weights={"enabled": True}, pools=pools), "Job")
    merges = re.findall(r"^merge (.*)$", job.container["command"][-1], re.MULTILINE)
    assert merges == [
        "jinaai/jina-embeddings-v4 code retrieval text-matching",
        "jinaai/jina-embeddings-v5-text-small v5-small.retrieval",
    ]
    # With the names of published models, which the demo's checkpoints are made for.
    sources = yaml.safe_load((CHART / "values.yaml").read_text())["weights"]["sources"]
    assert sources == {
        family.key or "v4": f"jinaai/{family.name}" for family in FAMILIES if not family.cross_encoder
    }


def test_only_workers_of_merged_weights_wait_for_them(tmp_path: Path) -> None:
    pools = {"code": {"model": "/models/official"}, "rerank": {}, "rerank-m0": {}}
    pods = pods_of(rendered_with(tmp_path, weights={"enabled": True}, pools=pools))
    waiting = {pod.name for pod in pods if "initContainers" in pod.spec}
    assert waiting == {"triptych-retrieval", "triptych-text-matching"}
