"""A clean environment, a router that hostile requests share, and a discovery document."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fault.documents import Document
from tests.fault.fuzzing import Target, running_target


@pytest.fixture(scope="session", autouse=True)
def _clean_environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as environment:
        for name in [name for name in os.environ if name.startswith("ROUTER_")]:
            environment.delenv(name)
        yield


@pytest.fixture(scope="session")
def target() -> Iterator[Target]:
    with running_target() as running:
        yield running


@pytest.fixture
def document(tmp_path: Path) -> Document:
    return Document(tmp_path / "workers.json")
