"""Ray Serve applications, scaling by hand and by load."""

from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve.autoscaling_policy import _apply_autoscaling_config
from ray.serve.config import AutoscalingConfig

from triptych.deploy.ray import policies, serve_app
from triptych.deploy.ray.config import ClusterConfig, ConfigError, parse_config, read_config
from triptych.deploy.ray.pressure import Pressure
from triptych.deploy.ray.running import scaled

EXAMPLES = Path(__file__).parents[3] / "deploy" / "ray" / "examples"


def config(**code: Any) -> ClusterConfig:
    return parse_config(
        {"pools": {"code": {"model": "m", **code}, "retrieval": {"model": "r", "replicas": 3, "gpus": 1}}}
    )


def versions(of: ClusterConfig) -> dict[str, Any]:
    return {name: its._bound_deployment.version for name, its in serve_app.applications(of).items()}


@pytest.mark.parametrize(
    ("change", "replaced"),
    [
        ({"replicas": 4}, set()),
        ({"replicas": {"min": 1, "max": 4, "tokens_per_second": 9}}, set()),
        # The routers are told which pools may be empty.
        ({"replicas": {"min": 0, "max": 4, "tokens_per_second": 9}}, {"triptych-routers"}),
        ({"worker": {"batch_tokens": 128}}, {"triptych-code"}),
        ({"cpus": 2}, {"triptych-code"}),
    ],
)
def test_what_a_change_replaces(change: dict[str, Any], replaced: set[str]) -> None:
    before, after = versions(config()), versions(config(**change))
    assert {name for name in before if before[name] != after[name]} == replaced


def test_serve_options_of_a_pool() -> None:
    placement = {"cpus": 2, "memory_gib": 1, "labels": {"zone": "a"}, "resources": {"fast": 1}}
    options = serve_app.pool_options(
        config(gpus=0.3, surge_percent=50, replicas_per_node=2, **placement), "code"
    )
    assert options["ray_actor_options"] == {
        "num_cpus": 2,
        "num_gpus": 0.3,
        "memory": 2**30,
        "resources": {"fast": 1},
        "label_selector": {"zone": "a"},
    }
    limits = [options[name] for name in ("num_replicas", "max_surge_percent", "max_replicas_per_node")]
    assert limits == [1, 50, 2]
    assert serve_app.pool_options(config(tensor_parallel=4), "code")["ray_actor_options"]["num_gpus"] == 4


def test_document_and_up_build_the_same() -> None:
    wanted = read_config(EXAMPLES / "cluster.yaml")
    built = serve_app.applications(wanted)
    for application in serve_app.serve_document(wanted)["applications"]:
        builder = getattr(serve_app, application["import_path"].partition(":")[2])
        ours, theirs = built[application["name"]]._bound_deployment, builder(application["args"])
        assert ours.version == theirs._bound_deployment.version
        assert ours.name == application["deployments"][0]["name"]


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
        self.ask = SimpleNamespace(remote=self._ask)

    def _ask(self, *_: str) -> Any:
        self.asked.append(Future())
        return SimpleNamespace(future=lambda: self.asked[-1])


def policy_of_a_pool() -> policies.PressurePolicy:
    return policies.PressurePolicy("triptych", "code", 100, utilization=0.5, backlog_seconds=30)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(policies.time, "monotonic", lambda: clock.now)
    return clock


@pytest.fixture
def book(monkeypatch: pytest.MonkeyPatch, clock: SimpleNamespace) -> Book:
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


def test_cold_start_is_steady(book: Book, clock: SimpleNamespace) -> None:
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


def test_policy_asks_again(book: Book, clock: SimpleNamespace) -> None:
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


def test_scaling_by_hand() -> None:
    assert scaled(config(), {"code": 4}).pools["code"].replicas == 4
    some = {"min": 0, "max": 2, "tokens_per_second": 9}
    ranged = scaled(config(replicas=some), {"code": 3}).pools["code"].replicas
    assert (ranged.min, ranged.max) == (3, 3)  # type: ignore[union-attr]
    for wanted, said in (({"text-matching": 1}, "is not a pool"), ({"code": 0}, "code.replicas")):
        with pytest.raises(ConfigError, match=said):
            scaled(config(), wanted)
