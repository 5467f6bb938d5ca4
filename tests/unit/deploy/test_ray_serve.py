"""Ray Serve applications, autoscaling policies, and the metrics of routers."""

import json
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ray.serve.autoscaling_policy import _apply_autoscaling_config
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import ServeDeploySchema

from deploy.ray import policies, serve_app
from deploy.ray.config import ClusterConfig, ConfigError, environment, parse_config, read_config
from deploy.ray.node_router import read_metrics, with_own_key
from deploy.ray.pressure import Pressure
from deploy.ray.running import scaled
from router.access.keys import KeyRing, read_keys

EXAMPLES = Path(__file__).parents[3] / "deploy" / "ray" / "examples"


def config(**code: Any) -> ClusterConfig:
    return parse_config(
        {"pools": {"code": {"model": "m", **code}, "retrieval": {"model": "r", "replicas": 3, "gpus": 1}}}
    )


def versions(of: ClusterConfig) -> dict[str, Any]:
    return {
        name: application._bound_deployment.version
        for name, application in serve_app.applications(of).items()
    }


def test_scaling_replaces_no_replica() -> None:
    assert versions(config()) == versions(config(replicas=4))
    assert versions(config()) == versions(config(replicas={"min": 0, "max": 4, "tokens_per_second": 9})) | {
        # The routers are told which pools may be empty.
        "triptych-routers": versions(config())["triptych-routers"]
    }


def test_a_change_replaces_one_pool_only() -> None:
    changed = {
        name
        for name, version in versions(config(worker={"batch_tokens": 128})).items()
        if version != versions(config())[name]
    }
    assert changed == {"triptych-code"}


def test_serve_options_of_a_pool() -> None:
    options = serve_app.pool_options(
        config(gpus=0.3, cpus=2, memory_gib=1, labels={"zone": "a"}, resources={"fast": 1}, surge_percent=50,
               replicas_per_node=2),
        "code",
    )  # fmt: skip
    assert options["ray_actor_options"] == {
        "num_cpus": 2,
        "num_gpus": 0.3,
        "memory": 2**30,
        "resources": {"fast": 1},
        "label_selector": {"zone": "a"},
    }
    assert (options["num_replicas"], options["max_surge_percent"], options["max_replicas_per_node"]) == (
        1,
        50,
        2,
    )
    assert serve_app.pool_options(config(tensor_parallel=4), "code")["ray_actor_options"]["num_gpus"] == 4


def test_the_example_document_is_current() -> None:
    committed = yaml.safe_load((EXAMPLES / "serve.yaml").read_text())
    assert committed == serve_app.serve_document(read_config(EXAMPLES / "cluster.yaml"))
    ServeDeploySchema.model_validate(committed)


def test_document_and_up_build_the_same() -> None:
    wanted = read_config(EXAMPLES / "cluster.yaml")
    built = serve_app.applications(wanted)
    for application in serve_app.serve_document(wanted)["applications"]:
        args = application["args"]
        if application["import_path"].endswith(":pool"):
            one = serve_app.pool(serve_app.PoolArgs(**args))
        else:
            one = serve_app.routers(serve_app.RouterArgs(**args))
        ours, theirs = built[application["name"]]._bound_deployment, one._bound_deployment
        assert ours.version == theirs.version
        assert ours.name == theirs.name == application["deployments"][0]["name"]


def test_replicas_are_not_in_the_arguments() -> None:
    def args(of: ClusterConfig) -> list[Any]:
        return [application["args"] for application in serve_app.serve_document(of)["applications"]]

    assert args(config()) == args(config(replicas=4))


def context(target: int, running: int = 1, **policy_state: Any) -> Any:
    return SimpleNamespace(
        target_num_replicas=target,
        current_num_replicas=running,
        total_num_requests=0,
        policy_state=policy_state,
        config=AutoscalingConfig(max_replicas=8, upscale_delay_s=10, downscale_delay_s=300),
    )


class Book:
    """A fake directory; tests set its answers."""

    def __init__(self) -> None:
        self.asked: list[Future[Pressure | None]] = []
        self.pressure = SimpleNamespace(remote=self._ask)

    def _ask(self, _: str) -> Any:
        self.asked.append(Future())
        return SimpleNamespace(future=lambda: self.asked[-1])


def policy_of_a_pool() -> policies.PressurePolicy:
    return policies.PressurePolicy(
        "triptych", "code", tokens_per_second=100, utilization=0.5, backlog_seconds=30
    )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(policies.time, "monotonic", lambda: clock.now)
    return clock


@pytest.fixture
def book(monkeypatch: pytest.MonkeyPatch) -> Book:
    book = Book()
    monkeypatch.setattr(policies, "find_directory", lambda _: book)
    return book


def test_unknown_load_scales_nothing(book: Book, clock: SimpleNamespace) -> None:
    policy = policy_of_a_pool()
    assert policy(context(7)) == (7, {})
    assert policy(context(7)) == (7, {})
    [question] = book.asked
    question.set_result(Pressure(waiting_tokens=1500, tokens_per_second=100))
    assert policy(context(7)) == (3.0, {})
    clock.now = policies.ASK_SECONDS
    policy(context(7))
    # No router reports any more.
    book.asked[-1].set_result(None)
    assert policy(context(7)) == (7, {})


def test_an_idle_pool_scales_to_zero(book: Book, clock: SimpleNamespace) -> None:
    policy = policy_of_a_pool()
    policy(context(1))
    book.asked[-1].set_result(Pressure())
    assert policy(context(1)) == (0, {})


def test_a_cold_start_is_steady(book: Book, clock: SimpleNamespace) -> None:
    policy = policy_of_a_pool()
    # Called as by Serve, which applies no delay while no replica runs.
    serve = _apply_autoscaling_config(lambda its: policy(its))
    serve(context(0, running=0))
    target, targets = 0, []
    # Replicas for the load of each second.
    for load in [0, 2, 4, 4, 0, 1, 4, *[4] * 10, 4, 1, 0]:
        clock.now += policies.ASK_SECONDS
        book.asked[-1].set_result(Pressure(tokens_per_second=50 * load))
        target, _ = serve(context(target, running=0))
        targets.append(target)
    # One at once, four after 10 s, and never fewer.
    assert targets == [0, *[1] * 15, *[4] * 4]


def test_the_policy_asks_again(book: Book, clock: SimpleNamespace) -> None:
    policy = policy_of_a_pool()
    policy(context(2))
    book.asked[-1].set_exception(RuntimeError("the actor died"))
    clock.now = 1.0
    assert policy(context(2)) == (2, {})
    assert len(book.asked) == 2
    clock.now += policies.PATIENCE_SECONDS + 1
    assert policy(context(2)) == (2, {})
    assert len(book.asked) == 3


def test_one_router_per_matching_node(monkeypatch: pytest.MonkeyPatch, clock: SimpleNamespace) -> None:
    nodes = [
        {"Alive": True, "Labels": {"edge": "yes"}},
        {"Alive": True, "Labels": {}},
        {"Alive": False, "Labels": {"edge": "yes"}},
    ]
    monkeypatch.setattr(policies.ray, "nodes", lambda: nodes)
    assert policies.NodesPolicy({})(context(1)) == (2, {})
    assert policies.NodesPolicy({"edge": "yes"})(context(1)) == (1, {})
    assert policies.NodesPolicy({"edge": "no"})(context(1)) == (1, {})


PAGE = """
triptych_router_processes 2.0
triptych_router_replica_state{pool="code",replica="a:1",state="ready"} 2.0
triptych_router_replica_state{pool="code",replica="a:1",state="down"} 0.0
triptych_router_replica_state{pool="code",replica="b:1",state="ready"} 1.0
triptych_router_replica_state{pool="code",replica="b:1",state="down"} 1.0
triptych_router_queue_tokens{pool="code",class="bulk"} 30.0
triptych_router_queue_tokens{pool="code",class="interactive"} 3.0
triptych_router_queue_tokens{pool="retrieval",class="bulk"} 0.0
triptych_router_replica_tokens_in_flight{pool="code",replica="a:1"} 7.0
triptych_router_requested_tokens_total{pool="code"} 9.0
"""


def test_metrics_of_a_router_are_read() -> None:
    known, serving, pressures, arrived = read_metrics(PAGE)
    assert known == {"a:1", "b:1"}
    # One of two processes does not use b:1 yet.
    assert serving == {"a:1"}
    assert pressures == {"code": Pressure(33, 7), "retrieval": Pressure()}
    assert arrived == {"code": 9.0}


@pytest.mark.parametrize("keys", ["", "[]", None])
def test_a_router_without_keys_stays_open(keys: str | None) -> None:
    env = {} if keys is None else {"ROUTER_API_KEYS": keys}
    assert with_own_key(env) == (env, {})
    # The same from `settings: {api_keys: []}`.
    assert with_own_key(environment("ROUTER_", {"api_keys": []}))[1] == {}


@pytest.mark.parametrize(
    "env", [{"ROUTER_API_KEYS": json.dumps(["0" * 64])}, {"ROUTER_API_KEYS_FILE": "/keys"}]
)
def test_a_router_with_keys_gets_ours(env: dict[str, str]) -> None:
    given, headers = with_own_key(env)
    *others, ours = read_keys(given["ROUTER_API_KEYS"])
    assert [key.sha256 for key in others] == json.loads(env.get("ROUTER_API_KEYS", "[]"))
    assert KeyRing([ours]).find(headers["Authorization"].encode()) == ours


def test_scaling_by_hand() -> None:
    assert scaled(config(), {"code": 4}).pools["code"].replicas == 4
    ranged = (
        scaled(config(replicas={"min": 0, "max": 2, "tokens_per_second": 9}), {"code": 3})
        .pools["code"]
        .replicas
    )
    assert (ranged.min, ranged.max) == (3, 3)  # type: ignore[union-attr]
    for wanted, said in (({"text-matching": 1}, "is not a pool"), ({"code": 0}, "at least 1")):
        with pytest.raises(ConfigError, match=said):
            scaled(config(), wanted)  # type: ignore[arg-type]
