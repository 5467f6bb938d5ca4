"""Fixtures of the deploy tests: a clean environment, fake children, and helm."""

import contextlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.deploy.fakes import Driver, Fakes, Run
from triptych.deploy.kubernetes.helm import NoHelm, helm
from triptych.deploy.local.supervisor import GaveUp


@pytest.fixture
def fakes(tmp_path: Path) -> Fakes:
    return Fakes(tmp_path)


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Run]]:
    runs: list[Run] = []

    def start(*arguments: Any, **options: Any) -> Run:
        runs.append(Run(*arguments, **options))
        return runs[-1]

    yield start
    for run in runs:
        run.supervisor.stop()
        run.supervisor.stop()
        with contextlib.suppress(GaveUp):
            await run.task


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("DEPLOY_", "ROUTER_", "WORKER_")):
            monkeypatch.delenv(name)


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Driver:
    folder = tmp_path / "bin"

    def driver(script: str) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "nvidia-smi").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    return driver


@pytest.fixture(scope="session")
def needs_helm() -> None:
    try:
        helm("version")
    except NoHelm as error:
        pytest.skip(str(error))
