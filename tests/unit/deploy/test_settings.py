"""The DEPLOY_* settings, and `.env.example`."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from triptych.deploy.env_example import render
from triptych.deploy.settings import DeploySettings

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("pools", "", {"retrieval": 1, "text-matching": 1, "code": 1}),
        ("pools", "retrieval=2, code", {"retrieval": 2, "code": 1}),
        ("variants", "retrieval=a/b,code=/models/code", {"retrieval": "a/b", "code": "/models/code"}),
        ("pools", "retrieval=2,shared", {"retrieval": 2, "shared": 1}),
        ("gpus", "0, 2", ("0", "2")),
    ],
)
def test_lists_and_pairs_are_read(monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: Any) -> None:
    monkeypatch.setenv(f"DEPLOY_{name.upper()}", text)
    assert getattr(DeploySettings(), name) == value


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("DEPLOY_POOLS", "retrieval,reranking", "no pool 'reranking'"),
        ("DEPLOY_POOLS", "retrieval,rerank", "name the cross-encoder"),
        ("DEPLOY_MODELS", "v3=/models/v3", "no pool serves: v3"),
        ("DEPLOY_POOLS", "retrieval=0", "at least one worker"),
        ("DEPLOY_POOLS", "shared,retrieval,text-matching,code", "shared has no task left"),
        ("DEPLOY_ENGINES", "both", "'merged' or 'shared'"),
        ("DEPLOY_POOLS", "code,code", "named twice: code"),
        ("DEPLOY_VARIANTS", "rerank=/m", "not served: rerank"),
        ("DEPLOY_WORKER_PORT", "65534", "too high"),
        ("DEPLOY_REPLICAS", "2", "no such setting: DEPLOY_REPLICAS"),
    ],
)
def test_wrong_settings_are_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError, match=said):
        DeploySettings()


@pytest.mark.parametrize(
    ("engines", "pools", "found"),
    [
        ("shared", None, {"shared": 1}),
        ("shared", "shared=2,code", {"shared": 2, "code": 1}),
        ("merged", None, {"retrieval": 1, "text-matching": 1, "code": 1}),
        ("shared", "retrieval", None),
        ("shared", "v3.base", None),
        ("merged", "shared", None),
    ],
)
def test_engines_choose_the_pools(
    monkeypatch: pytest.MonkeyPatch, engines: str, pools: str | None, found: dict[str, int] | None
) -> None:
    monkeypatch.setenv("DEPLOY_ENGINES", engines)
    if pools is not None:
        monkeypatch.setenv("DEPLOY_POOLS", pools)
    if found is not None:
        assert DeploySettings().pools == found
        return
    with pytest.raises(ValidationError, match=f"DEPLOY_ENGINES is {engines}, but DEPLOY_POOLS names {pools}"):
        DeploySettings()


def test_env_example_is_up_to_date() -> None:
    written = (ROOT / ".env.example").read_text()
    assert written == render(), "run: python -m deploy.env_example > .env.example"
    assert "\n# None\n" not in written, "a setting has no description"


def test_env_example_can_be_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    for line in render().splitlines():
        if line.startswith("#DEPLOY_"):
            name, _, value = line[1:].partition("=")
            monkeypatch.setenv(name, value)
    defaults = {
        name: field.get_default(call_default_factory=True, validated_data={})
        for name, field in DeploySettings.model_fields.items()
    }
    assert dict(DeploySettings()) == defaults
