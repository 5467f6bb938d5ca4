"""The processes of a local deployment and their environments."""

import hashlib
import json
import os
from collections import Counter
from typing import Any

import pytest

from deploy.common.variants import Models
from deploy.local.specs import PlanError, plan_router, plan_workers, with_token
from deploy.local.supervisor import Spec
from deploy.settings import DeploySettings
from router.access.keys import KeyRing, read_keys
from workers.shared.contract import POOLS

MODELS = Models({pool: f"/variants/{pool}" for pool in POOLS}, (), demo=True)


def plan(
    environ: dict[str, str] | None = None, gpus: tuple[str, ...] = (), cores: int = 8, **settings: Any
) -> list[Spec]:
    pairs = plan_workers(DeploySettings(**settings), MODELS, environ or {}, gpus, cores)
    return [spec for _, spec in pairs]


def test_pool_variant_and_port_of_workers() -> None:
    workers = plan(pools={"retrieval": 2, "code": 1}, worker_port=9000)
    said = [
        (spec.name, spec.env["WORKER_TASK"], spec.env["WORKER_MODEL"], spec.env["WORKER_PORT"], spec.port)
        for spec in workers
    ]
    assert said == [
        ("retrieval-0", "retrieval", "/variants/retrieval", "9000", 9000),
        ("code-0", "code", "/variants/code", "9001", 9001),
        ("retrieval-1", "retrieval", "/variants/retrieval", "9002", 9002),
    ]


def test_cpu_engines_share_the_cores() -> None:
    workers = plan(cores=8)
    assert {spec.env["OMP_NUM_THREADS"] for spec in workers} == {"2"}
    assert {spec.env["VLLM_CPU_OMP_THREADS_BIND"] for spec in workers} == {"nobind"}
    assert {spec.gate for spec in workers} == {None}
    assert plan(cores=1)[0].env["OMP_NUM_THREADS"] == "1"


def test_operator_settings_win() -> None:
    environ = {"OMP_NUM_THREADS": "7", "WORKER_GPU_MEMORY_UTILIZATION": "0.2", "WORKER_DTYPE": "float16"}
    assert {spec.env["OMP_NUM_THREADS"] for spec in plan(environ)} == {"7"}
    env = plan(environ, gpus=("0",))[0].env
    assert env["WORKER_GPU_MEMORY_UTILIZATION"] == "0.2"
    assert env["WORKER_DTYPE"] == "float16"


def test_workers_share_a_gpu() -> None:
    workers = plan(gpus=("0",))
    assert {spec.gate for spec in workers} == {"0"}
    assert {spec.env["WORKER_GPU_MEMORY_UTILIZATION"] for spec in workers} == {"0.300"}
    assert {spec.env["CUDA_VISIBLE_DEVICES"] for spec in workers} == {"0"}


def test_a_worker_with_its_own_gpu() -> None:
    workers = plan(gpus=("0", "1", "2"))
    assert [spec.env["CUDA_VISIBLE_DEVICES"] for spec in workers] == ["0", "1", "2"]
    assert all("WORKER_GPU_MEMORY_UTILIZATION" not in spec.env for spec in workers)


@pytest.mark.parametrize("gpus", [("0", "1"), ("0", "1", "2")])
def test_a_pool_is_spread_over_gpus(gpus: tuple[str, ...]) -> None:
    workers = plan(gpus=gpus, pools=dict.fromkeys(POOLS, len(gpus)))
    for pool in POOLS:
        assert {spec.gate for spec in workers if spec.env["WORKER_TASK"] == pool} == set(gpus)
    assert set(Counter(spec.gate for spec in workers).values()) == {len(POOLS)}


def test_tensor_parallel_groups_gpus() -> None:
    workers = plan({"WORKER_TENSOR_PARALLEL": "2"}, gpus=("0", "1", "2", "3"), pools={"retrieval": 2})
    assert [spec.env["CUDA_VISIBLE_DEVICES"] for spec in workers] == ["0,1", "2,3"]
    with pytest.raises(PlanError, match="WORKER_TENSOR_PARALLEL is 2, but there are 1"):
        plan({"WORKER_TENSOR_PARALLEL": "2"}, gpus=("0",))


@pytest.mark.parametrize("name", ["WORKER_MODEL", "WORKER_TASK", "WORKER_PORT", "ROUTER_WORKERS"])
def test_settings_of_the_deployment_are_refused(name: str) -> None:
    with pytest.raises(PlanError, match=name):
        plan({name: "x"})


def test_the_router_knows_all_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUTER_PORT", "8088")
    pairs = plan_workers(DeploySettings(pools={"retrieval": 2, "code": 1}), MODELS, {}, (), 2)
    router = plan_router(pairs, {"ROUTER_PORT": "8088"})
    assert json.loads(router.env["ROUTER_WORKERS"]) == [
        {"targets": ["127.0.0.1:8101", "127.0.0.1:8103"], "labels": {"task": "retrieval"}},
        {"targets": ["127.0.0.1:8102"], "labels": {"task": "code"}},
    ]
    assert router.port == 8088


def test_router_and_worker_ports_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUTER_PORT", "8102")
    with pytest.raises(PlanError, match="ROUTER_PORT is one of the workers' ports"):
        plan_router(plan_workers(DeploySettings(), MODELS, {}, (), 2), {})


def test_each_start_has_a_new_token() -> None:
    tokens = [with_token({"A": "b"}) for _ in range(2)]
    assert tokens[0] != tokens[1]
    environ = tokens[0]
    pairs = plan_workers(DeploySettings(), MODELS, environ, (), 2)
    token = plan_router(pairs, environ).env["ROUTER_WORKER_TOKEN"]
    assert len(token) >= 32
    for _, spec in pairs:
        assert spec.env["WORKER_TOKEN"] == spec.token == token
        assert not any(token in argument for argument in spec.argv)
        assert token not in repr(spec)


@pytest.mark.parametrize("name", ["ROUTER_WORKER_TOKEN", "WORKER_TOKEN"])
def test_an_operators_token_is_kept(name: str) -> None:
    environ = with_token({name: "the-operators-own-token"})
    assert {environ["ROUTER_WORKER_TOKEN"], environ["WORKER_TOKEN"]} == {"the-operators-own-token"}


def test_different_tokens_are_refused() -> None:
    with pytest.raises(PlanError, match="differ") as caught:
        with_token({"ROUTER_WORKER_TOKEN": "one-of-two-tokens", "WORKER_TOKEN": "the-other-token"})
    assert "token" not in str(caught.value).replace("ROUTER_WORKER_TOKEN", "").replace("WORKER_TOKEN", "")


def test_a_local_router_gets_our_key(monkeypatch: pytest.MonkeyPatch) -> None:
    key = hashlib.sha256(b"operators").hexdigest()
    monkeypatch.setenv("ROUTER_API_KEYS", json.dumps([key]))
    router = plan_router(plan_workers(DeploySettings(), MODELS, {}, (), 2), dict(os.environ))
    ring = KeyRing(read_keys(router.env["ROUTER_API_KEYS"]))
    assert router.token is not None
    assert ring.find(f"Bearer {router.token}".encode()).name == "deploy.local"
    assert ring.find(b"Bearer operators").sha256 == key
    monkeypatch.delenv("ROUTER_API_KEYS")
    assert plan_router(plan_workers(DeploySettings(), MODELS, {}, (), 2), {}).token is None
