"""`python -m deploy ray plan`: what is asked of it, what it prints, how it ends."""

import json
import os
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.ray import command

ROOT = Path(__file__).parents[3]
GPUS = "2xcpus=8,gpus=1,gpu_memory=80"


@pytest.fixture(autouse=True)
def _away_from_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: Any, **__: Any) -> None:
        raise AssertionError("nobody asked for a cluster")

    monkeypatch.setattr(command.ray, "init", connect)
    monkeypatch.delenv("RAY_SERVE_USE_PACK_SCHEDULING_STRATEGY", raising=False)


def written(folder: Path, **pools: dict[str, Any]) -> str:
    path = folder / "config.yaml"
    full = {
        name: {"model": "jinaai/jina-embeddings-v4", "surge_percent": 0, **its} for name, its in pools.items()
    }
    path.write_text(yaml.safe_dump({"pools": full}, sort_keys=False))
    return str(path)


def test_a_plan_that_fits_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = written(tmp_path, code={"gpus": 0.5, "replicas": 2})
    assert command.main(["plan", "--config", config, "--nodes", GPUS]) == 0
    out = capsys.readouterr().out
    assert "node-2  1/8   code 1    gpu 0: code 0.5  router\n" in out
    # The size of the weights is known, and compared.
    assert "code: weights 7.0 + cache" in out
    assert out.endswith("\nIt fits.\n")


def test_one_that_does_not_fit_says_why_and_ends_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = written(tmp_path, code={"gpus": 1, "replicas": 3})
    assert command.main(["plan", "--config", config, "--nodes", "cpus=8,gpus=1,gpu_memory=80", "cpus=8"]) == 1
    out = capsys.readouterr().out
    assert "refused: code: 2 of 3 have no place; each needs 1 CPU, 1 GPU; the best node, " in out
    assert out.endswith("\nIt does not fit.\n")


def test_as_json_it_is_the_same_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = written(tmp_path, code={"gpus": 0.5, "replicas": 5})
    for nodes, code in ((f"{GPUS} {GPUS}", 0), (GPUS, 1)):
        assert command.main(["plan", "--config", config, "--nodes", *nodes.split(), "--json"]) == code
        its = json.loads(capsys.readouterr().out)
        assert its["fits"] == (not code) == (not its["refusals"])
        assert its["pools"]["code"]["placed"] == (4 if code else 5)


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        (["cpus=8,gpu=1"], "no such part: gpu; there are name, count, cpus"),
        (["cpus=8", "gpus=1"], "gpus=1: cpus is missing"),
        (["nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_nodes_that_are_written_wrong_are_named(
    nodes: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["plan", "--config", written(tmp_path, code={}), "--nodes", *nodes]) == os.EX_CONFIG
    printed = capsys.readouterr()
    assert said in printed.err
    assert not printed.out


def test_nodes_may_be_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nodes = tmp_path / "nodes.yaml"
    nodes.write_text("- {name: big, cpus: 16}\n")
    assert command.main(["plan", "--config", written(tmp_path, code={}), "--nodes", str(nodes)]) == 0
    assert "big   1/16  code 1" in capsys.readouterr().out


def test_without_nodes_the_cluster_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []
    row = {"Alive": True, "NodeManagerAddress": "10.0.0.7", "NodeID": "ab", "Labels": {}}
    monkeypatch.setattr(command.ray, "init", lambda address, **_: asked.append(address))
    monkeypatch.setattr(command.ray, "nodes", lambda: [row | {"Resources": {"CPU": 4.0}}])
    config = written(tmp_path, code={"replicas": 5})
    assert command.main(["plan", "--config", config, "--address", "10.0.0.1:6379"]) == 1
    assert asked == ["10.0.0.1:6379"]
    assert "the best node, 10.0.0.7, has 0 CPUs free" in capsys.readouterr().out


def test_without_a_configuration_it_is_the_demo_which_is_not_made(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command.demo, "make", lambda: pytest.fail("the demo was made"))
    assert command.main(["plan", "--nodes", "cpus=8"]) == 0
    assert "retrieval 1, text-matching 1, code 1" in capsys.readouterr().out


@pytest.mark.parametrize(("value", "code"), [("1", 0), ("0", 1)])
def test_replicas_are_packed_when_serve_is_told_to(
    value: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_SERVE_USE_PACK_SCHEDULING_STRATEGY", value)
    # Spread, the small ones take a part of each GPU, and the whole one finds none.
    config = written(tmp_path, retrieval={"gpus": 0.5, "replicas": 2}, code={"gpus": 1})
    assert command.main(["plan", "--config", config, "--nodes", GPUS]) == code


def test_the_guide_shows_what_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    # As where there is no /models.
    monkeypatch.setattr(command, "weights_gib", lambda _: None)
    guide = (ROOT / "docs" / "CLUSTER.md").read_text()
    called, _, rest = guide.partition("    $ python -m deploy ray ")[2].partition("\n")
    command.main(called.split())
    printed = capsys.readouterr().out
    assert rest.startswith(textwrap.indent(printed, "    "))
