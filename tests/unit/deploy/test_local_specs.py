"""The processes of a local deployment and their environments."""

import hashlib
import json
import os
from collections import Counter
from contextlib import nullcontext
from typing import Any

import pytest

from triptych.deploy.common.variants import Models, choose
from triptych.deploy.local.specs import plan_router, plan_workers, with_token
from triptych.deploy.local.supervisor import Spec
from triptych.deploy.settings import DeploySettings
from triptych.router.access.keys import KeyRing, read_keys
from triptych.workers.shared.contract import POOLS
from triptych.workers.shared.host_ports import address_of
from triptych.workers.shared.strict_settings import SettingsError

MODELS = Models({pool: f"/variants/{pool}" for pool in POOLS}, (), demo=frozenset(POOLS))


def plan(
    environ: dict[str, str] | None = None, gpus: tuple[str, ...] = (), cores: int = 8, **settings: Any
) -> list[Spec]:
    return plan_workers(DeploySettings(**settings), MODELS, environ or {}, dict.fromkeys(gpus), cores)


def test_pool_variant_and_port_of_workers() -> None:
    workers = plan(pools={"retrieval": 2, "code": 1}, worker_port=9000)
    assert [(spec.name, spec.port) for spec in workers] == [
        ("retrieval-0", 9000),
        ("code-0", 9001),
        ("retrieval-1", 9002),
    ]
    for spec in workers:
        pool = spec.name.partition("-")[0]
        own = {"WORKER_TASK": pool, "WORKER_MODEL": f"/variants/{pool}", "WORKER_PORT": str(spec.port)}
        assert own.items() <= spec.env.items()


@pytest.mark.parametrize(("cores", "threads"), [(8, "2"), (1, "1")])
def test_cpu_engines_share_the_cores(cores: int, threads: str) -> None:
    for spec in plan(cores=cores):
        assert (spec.env["OMP_NUM_THREADS"], spec.gate) == (threads, None)
        assert spec.env["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"


@pytest.mark.parametrize("gpus", [(), ("0",)])
def test_operator_settings_win(gpus: tuple[str, ...]) -> None:
    environ = {"OMP_NUM_THREADS": "7", "WORKER_GPU_MEMORY_UTILIZATION": "0.2", "WORKER_DTYPE": "float16"}
    assert all(environ.items() <= spec.env.items() for spec in plan(environ, gpus))


@pytest.mark.parametrize(
    ("gpus", "devices", "share"), [("0", "000", "0.300"), ("01", "010", "0.450"), ("012", "012", None)]
)
def test_workers_share_gpus(gpus: str, devices: str, share: str | None) -> None:
    workers = plan(gpus=tuple(gpus))
    assert [spec.env["CUDA_VISIBLE_DEVICES"] for spec in workers] == list(devices)
    assert [spec.gate for spec in workers] == list(devices)
    assert workers[0].env.get("WORKER_GPU_MEMORY_UTILIZATION") == share


@pytest.mark.parametrize("gpus", [("0", "1"), ("0", "1", "2")])
def test_pool_is_spread_over_gpus(gpus: tuple[str, ...]) -> None:
    workers = plan(gpus=gpus, pools=dict.fromkeys(POOLS, len(gpus)))
    for pool in POOLS:
        assert {spec.gate for spec in workers if spec.env["WORKER_TASK"] == pool} == set(gpus)
    assert set(Counter(spec.gate for spec in workers).values()) == {len(POOLS)}


def test_tensor_parallel_groups_gpus() -> None:
    workers = plan({"WORKER_TENSOR_PARALLEL": "2"}, gpus=("0", "1", "2", "3"), pools={"retrieval": 2})
    assert [spec.env["CUDA_VISIBLE_DEVICES"] for spec in workers] == ["0,1", "2,3"]
    with pytest.raises(SettingsError, match="WORKER_TENSOR_PARALLEL is 2, but there are 1"):
        plan({"WORKER_TENSOR_PARALLEL": "2"}, gpus=("0",))


@pytest.mark.parametrize(
    ("gpus", "gib", "environ", "said"),
    [
        ("0", 24, {}, "DEPLOY_POOLS"),
        ("0", 24, {"DEPLOY_POOLS": "retrieval,code"}, None),
        ("012", 12, {}, None),
        ("01", 12, {}, "2 workers share GPU 0"),
        ("0", 8, {"DEPLOY_POOLS": "code"}, "code-0 cannot start"),
        ("0", 24, {"DEPLOY_MODEL": "demo"}, None),
        ("0", 8, {"DEPLOY_POOLS": "code,v3.base", "DEPLOY_MODELS": "v3=demo"}, "code-0 cannot start"),
        ("0", None, {}, None),
    ],
)
def test_too_little_gpu_memory_is_refused(
    monkeypatch: pytest.MonkeyPatch, gpus: str, gib: float | None, environ: dict[str, str], said: str | None
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    settings = DeploySettings()
    models = choose(settings, has_gpu=True)
    with pytest.raises(SettingsError, match=said) if said else nullcontext():
        plan_workers(settings, models, {}, dict.fromkeys(gpus, gib), cores=8)


@pytest.mark.parametrize("name", ["WORKER_MODEL", "WORKER_TASK", "WORKER_PORT", "ROUTER_WORKERS"])
def test_settings_of_the_deployment_are_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        plan({name: "x"})


def plan_all(environ: dict[str, str], **settings: Any) -> tuple[Spec, list[Spec]]:
    workers = plan_workers(DeploySettings(**settings), MODELS, environ, {}, 2)
    return plan_router(workers, environ), workers


def test_router_knows_all_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUTER_PORT", "8088")
    router, _ = plan_all({}, pools={"retrieval": 2, "code": 1})
    # In the order of the pools, since the first one's model is the default.
    assert json.loads(router.env["ROUTER_WORKERS"]) == [
        {"targets": ["127.0.0.1:8101", "127.0.0.1:8103"], "labels": {"task": "retrieval"}},
        {"targets": ["127.0.0.1:8102"], "labels": {"task": "code"}},
    ]
    assert router.port == 8088


def test_addresses_of_ipv6_have_brackets() -> None:
    router, [worker] = plan_all({"WORKER_HOST": "::1"}, pools={"code": 1})
    assert (worker.host, address_of(worker.host, worker.port)) == ("::1", "[::1]:8101")
    assert '["[::1]:8101"]' in router.env["ROUTER_WORKERS"]


@pytest.mark.parametrize(("port", "said"), [("8102", "one of the workers' ports"), ("0", "random port")])
def test_wrong_router_port_is_refused(monkeypatch: pytest.MonkeyPatch, port: str, said: str) -> None:
    monkeypatch.setenv("ROUTER_PORT", port)
    with pytest.raises(SettingsError, match=f"ROUTER_PORT.*{said}"):
        plan_all({})


def test_each_start_has_a_new_token() -> None:
    environ = with_token({"A": "b"})
    assert environ != with_token({"A": "b"})
    router, workers = plan_all(environ)
    token = router.env["ROUTER_WORKER_TOKEN"]
    assert len(token) >= 32
    for spec in workers:
        assert spec.env["WORKER_TOKEN"] == spec.token == token
        assert not any(token in argument for argument in spec.argv)
        assert token not in repr(spec)


@pytest.mark.parametrize("name", ["ROUTER_WORKER_TOKEN", "WORKER_TOKEN"])
def test_operators_token_is_kept(name: str) -> None:
    environ = with_token({name: "the-operators-own-token"})
    assert {environ["ROUTER_WORKER_TOKEN"], environ["WORKER_TOKEN"]} == {"the-operators-own-token"}


def test_different_tokens_are_refused() -> None:
    with pytest.raises(SettingsError, match="differ") as caught:
        with_token({"ROUTER_WORKER_TOKEN": "one-of-two-tokens", "WORKER_TOKEN": "the-other-token"})
    assert "token" not in str(caught.value).replace("ROUTER_WORKER_TOKEN", "").replace("WORKER_TOKEN", "")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ROUTER_API_KEYS", json.dumps([hashlib.sha256(b"operators").hexdigest()])),
        ("ROUTER_API_KEYS_FILE", "/keys"),
    ],
)
def test_local_router_gets_our_key(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    assert plan_all({})[0].token is None
    monkeypatch.setenv(name, value)
    router, _ = plan_all(dict(os.environ))
    ring = KeyRing(read_keys(router.env["ROUTER_API_KEYS"]))
    assert ring.find(f"Bearer {router.token}".encode()).name == "deploy.local"
    if name == "ROUTER_API_KEYS":
        assert ring.find(b"Bearer operators")
