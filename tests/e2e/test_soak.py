"""Soak with real engines: mixed traffic and hostile clients, while workers are killed and stopped.

SOAK_SECONDS sets the duration; `make soak SECONDS=1200` takes 20 minutes.
"""

import asyncio
import os
from contextlib import suppress

import psutil
import pytest

from tests.e2e.test_faults import serves_retrieval, until_all_workers_are_ready, workers_of
from tests.fakes.hostile_clients import misbehave
from tests.mixed_traffic import Traffic, kinds, meanwhile
from tests.processes import Watch, command, descendants, thirds, wait_gone
from triptych.loadtests.server_processes import Deployment

SECONDS = float(os.environ.get("SOAK_SECONDS", "60"))
SEED = 1
REQUESTS_A_SECOND = 8
HOSTILE_CLIENTS = 20
# Words; the deployment's context is 2,048 tokens.
LONGEST_TEXT = 900
STOPPED_SECONDS = 10.0
# Allowed growth between the first and the last third: fragments of the allocator, connections to new workers.
RSS_SHARE, DESCRIPTORS = 0.10, 30


async def disturb(deployment: Deployment) -> None:
    """Kill one worker of a pool, wait for its successor, stop another for a while, and so on."""
    while True:
        await until_all_workers_are_ready(deployment)
        victim, survivor = filter(serves_retrieval, workers_of(deployment))
        victim.kill()
        assert await asyncio.to_thread(wait_gone, [victim])
        await until_all_workers_are_ready(deployment)
        survivor.suspend()
        await asyncio.sleep(STOPPED_SECONDS)
        with suppress(psutil.NoSuchProcess):
            survivor.resume()


@pytest.mark.long
@pytest.mark.ends_worker
async def test_mixed_traffic_survives_faults(deployment: Deployment) -> None:
    await until_all_workers_are_ready(deployment)
    [router] = [its for its in descendants(deployment.pid) if command(its).endswith("-m triptych.router")]
    watch = Watch(router.pid, 1.0)
    traffic = Traffic(deployment.url, kinds(LONGEST_TEXT), SEED)
    await traffic.learn()
    hostile = misbehave("127.0.0.1", deployment.port, HOSTILE_CLIENTS, SEED)
    async with meanwhile(hostile, disturb(deployment), watch.run()):
        await traffic.run(SECONDS, REQUESTS_A_SECOND)
    await traffic.close()
    (first, last), (few, many) = thirds(watch.resident), thirds(watch.descriptors)
    print(
        f"{traffic.codes}; resident {first / 2**20:.0f} then {last / 2**20:.0f} MiB, at most "
        f"{max(watch.resident) / 2**20:.0f}; descriptors {few:.0f} then {many:.0f}"
    )
    print({outcome: count for outcome, count in traffic.outcomes.items() if outcome[1] != "ok"})
    assert traffic.wrong == []
    assert traffic.codes.keys() <= {"ok", "QUEUE_FULL"}, traffic.outcomes
    assert last <= first * (1 + RSS_SHARE)
    assert many <= few + DESCRIPTORS
