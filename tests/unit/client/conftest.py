"""Runs a test with each of the two clients."""

import pytest

from tests.unit.client.fakes import Call, async_call, sync_call


@pytest.fixture(params=[sync_call, async_call], ids=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Call:
    return request.param
