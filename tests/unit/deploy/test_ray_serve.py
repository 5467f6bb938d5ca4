"""From configuration to Ray Serve: options, versions, the committed YAML; policies; the router's part."""

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
from deploy.ray.pressure import Pressure
from deploy.ray.router import read_metrics, with_empty_pools, with_own_key
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


def test_the_number_of_replicas_replaces_none_of_them() -> None:
    assert versions(config()) == versions(config(replicas=4))
    assert versions(config()) == versions(config(replicas={"min": 0, "max": 4, "tokens_per_second": 9})) | {
        # The routers are told which pools may be empty.
        "triptych-routers": versions(config())["triptych-routers"]
    }


def test_a_pool_that_changes_leaves_the_others_alone() -> None:
    changed = {
        name
        for name, version in versions(config(worker={"batch_tokens": 128})).items()
        if version != versions(config())[name]
    }
    assert changed == {"triptych-code"}


def test_options_say_what_the_configuration_does() -> None:
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


def test_the_committed_document_is_what_the_configuration_says() -> None:
    committed = yaml.safe_load((EXAMPLES / "serve.yaml").read_text())
    assert committed == serve_app.serve_document(read_config(EXAMPLES / "cluster.yaml"))
    ServeDeploySchema.model_validate(committed)


def test_the_document_builds_what_up_builds() -> None:
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


def test_the_number_is_beside_the_arguments_in_the_document() -> None:
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
    """A directory that answers when it is told to."""

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


def test_a_pool_stays_as_it_is_until_its_load_is_known(book: Book, clock: SimpleNamespace) -> None:
    policy = policy_of_a_pool()
    assert policy(context(7)) == (7, {})
    assert policy(context(7)) == (7, {})
    [question] = book.asked
    question.set_result(Pressure(waiting_tokens=1500, tokens_per_second=100))
    assert policy(context(7)) == (3.0, {})
    clock.now = policies.ASK_SECONDS
    policy(context(7))
    # No router says anything any more.
    book.asked[-1].set_result(None)
    assert policy(context(7)) == (7, {})


def test_a_pool_that_has_nothing_to_do_needs_no_replica(book: Book, clock: SimpleNamespace) -> None:
    policy = policy_of_a_pool()
    policy(context(1))
    book.asked[-1].set_result(Pressure())
    assert policy(context(1)) == (0, {})


def test_a_cold_start_is_neither_broken_off_nor_grown_by_a_load_that_swings(
    book: Book, clock: SimpleNamespace
) -> None:
    policy = policy_of_a_pool()
    # As Serve calls it: while no replica runs it knows no delay of its own.
    serve = _apply_autoscaling_config(lambda its: policy(its))
    serve(context(0, running=0))
    target, targets = 0, []
    # Replicas that the load of each second asks for.
    for load in [0, 2, 4, 4, 0, 1, 4, *[4] * 10, 4, 1, 0]:
        clock.now += policies.ASK_SECONDS
        book.asked[-1].set_result(Pressure(tokens_per_second=50 * load))
        target, _ = serve(context(target, running=0))
        targets.append(target)
    # One at once; four when they have been wanted for 10 s; not fewer, though nothing runs yet.
    assert targets == [0, *[1] * 15, *[4] * 4]


def test_a_directory_that_fails_or_is_silent_is_asked_again(book: Book, clock: SimpleNamespace) -> None:
    policy = policy_of_a_pool()
    policy(context(2))
    book.asked[-1].set_exception(RuntimeError("the actor died"))
    clock.now = 1.0
    assert policy(context(2)) == (2, {})
    assert len(book.asked) == 2
    clock.now += policies.PATIENCE_SECONDS + 1
    assert policy(context(2)) == (2, {})
    assert len(book.asked) == 3


def test_there_is_a_router_for_each_node_that_lives_and_fits(
    monkeypatch: pytest.MonkeyPatch, clock: SimpleNamespace
) -> None:
    nodes = [
        {"Alive": True, "Labels": {"edge": "yes"}},
        {"Alive": True, "Labels": {}},
        {"Alive": False, "Labels": {"edge": "yes"}},
    ]
    monkeypatch.setattr(policies.ray, "nodes", lambda: nodes)
    assert policies.NodesPolicy({})(context(1)) == (2, {})
    assert policies.NodesPolicy({"edge": "yes"})(context(1)) == (1, {})
    assert policies.NodesPolicy({"edge": "no"})(context(1)) == (1, {})


@pytest.mark.parametrize(
    ("selector", "count"), [("a", 1), ("!a", 3), ("in(a,b)", 2), ("!in(a,b)", 2), ("in(a, b)", 1)]
)
def test_a_routers_labels_are_read_as_ray_reads_them(
    monkeypatch: pytest.MonkeyPatch, clock: SimpleNamespace, selector: str, count: int
) -> None:
    nodes = [{"Alive": True, "Labels": {"zone": zone}} for zone in "abc"] + [{"Alive": True, "Labels": {}}]
    monkeypatch.setattr(policies.ray, "nodes", lambda: nodes)
    assert policies.NodesPolicy({"zone": selector})(context(9)) == (count, {})


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


def test_a_routers_metrics_say_what_it_knows_and_how_much_it_has() -> None:
    known, serving, pressures, arrived = read_metrics(PAGE)
    assert known == {"a:1", "b:1"}
    # One process of two does not see it yet.
    assert serving == {"a:1"}
    assert pressures == {"code": Pressure(33, 7), "retrieval": Pressure()}
    assert arrived == {"code": 9.0}


def test_a_pool_without_workers_is_named_all_the_same() -> None:
    groups: list[dict[str, object]] = [{"targets": ["a:1"], "labels": {"task": "code"}}]
    named = with_empty_pools(groups, {"code": True, "retrieval": False, "text-matching": True})
    assert json.loads(json.dumps(named)) == [
        {"targets": ["a:1"], "labels": {"task": "code"}},
        {"targets": [], "labels": {"task": "retrieval", "min_replicas": "1"}},
        {"targets": [], "labels": {"task": "text-matching", "min_replicas": "0"}},
    ]


@pytest.mark.parametrize("keys", ["", "[]", None])
def test_a_router_without_keys_stays_open(keys: str | None) -> None:
    env = {} if keys is None else {"ROUTER_API_KEYS": keys}
    assert with_own_key(env) == (env, {})
    # As `settings: {api_keys: []}` has it.
    assert with_own_key(environment("ROUTER_", {"api_keys": []}))[1] == {}


@pytest.mark.parametrize(
    "env", [{"ROUTER_API_KEYS": json.dumps(["0" * 64])}, {"ROUTER_API_KEYS_FILE": "/keys"}]
)
def test_a_router_with_keys_is_asked_with_one_of_our_own(env: dict[str, str]) -> None:
    given, headers = with_own_key(env)
    *others, ours = read_keys(given["ROUTER_API_KEYS"])
    assert [key.sha256 for key in others] == json.loads(env.get("ROUTER_API_KEYS", "[]"))
    assert KeyRing([ours]).find(headers["Authorization"].encode()) == ours


def test_scaling_by_hand_names_what_cannot_be() -> None:
    assert scaled(config(), {"code": 4}).pools["code"].replicas == 4
    ranged = (
        scaled(config(replicas={"min": 0, "max": 2, "tokens_per_second": 9}), {"code": 3})
        .pools["code"]
        .replicas
    )
    assert (ranged.min, ranged.max) == (3, 3)  # type: ignore[union-attr]
    for wanted, said in (({"text-matching": 1}, "is no pool"), ({"code": 0}, "at least 1")):
        with pytest.raises(ConfigError, match=said):
            scaled(config(), wanted)  # type: ignore[arg-type]
