"""A router without free file descriptors blames no worker."""

import errno
import os
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import Mock

import aiohttp
import pytest
from yarl import URL

from tests.unit.router.apps import Answer, Workers, client_of_app
from triptych.router.media import fetch
from triptych.router.serving.server import raise_descriptor_limit


class Exhausted(Workers):
    """The first calls find no free descriptor."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self._error = error
        self.left = 3

    @asynccontextmanager
    async def post(self, url: URL, **call: Any) -> AsyncIterator[Answer]:
        if self.left:
            self.left -= 1
            raise self._error
        async with super().post(url, **call) as reply:
            yield reply


EXHAUSTED = OSError(errno.EMFILE, os.strerror(errno.EMFILE))


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENFILE, "no file"), aiohttp.ClientConnectorError(None, EXHAUSTED)],  # type: ignore[arg-type]
)
async def test_exhaustion_is_no_failure_of_a_worker(error: OSError) -> None:
    workers = Exhausted(error)
    async with client_of_app(workers) as client:
        reply = await client.post("/v1/embeddings", json={"input": "a"})
        assert (reply.status_code, workers.left) == (200, 0)
        page = (await client.get("/metrics")).text
        assert 'outcome="out_of_descriptors",pool="text-matching"} 3.0' in page
        assert 'replica="matching:1",state="ready"} 1.0' in page
        assert 'replica="matching:1",state="closed"} 1.0' in page


async def test_exhaustion_is_no_fault_of_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    # Where the socket is made.
    monkeypatch.setattr(fetch, "is_allowed", Mock(side_effect=EXHAUSTED))
    async with client_of_app(Workers()) as client:
        reply = await client.post("/v1/embeddings", json={"input": {"image": "http://1.1.1.1/a.png"}})
        assert (reply.status_code, reply.json()["code"]) == (503, "SERVICE_UNAVAILABLE")
        assert int(reply.headers["retry-after"]) > 0


def test_descriptor_limit_is_raised() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
    try:
        raise_descriptor_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
