"""A clean environment, and a client of an application with in-process workers."""

import os
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.unit.router.apps import Workers, client_of_app


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("ROUTER_"):
            monkeypatch.delenv(name)


@pytest.fixture
def workers() -> Workers:
    return Workers()


@pytest.fixture
async def client(workers: Workers) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of_app(workers) as client:
        yield client
