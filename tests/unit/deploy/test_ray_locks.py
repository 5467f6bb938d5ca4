"""Locks between replicas on one node."""

import asyncio
import socket
import tempfile
from pathlib import Path

import pytest

from triptych.deploy.ray.locks import gpus_locked, take_port
from triptych.loadtests.server_processes import free_port


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))


def test_port_is_given_once() -> None:
    one = [free_port()]
    taken, lock = take_port("127.0.0.1", one)
    assert [taken] == one
    with pytest.raises(OSError, match="worker_ports"):
        take_port("127.0.0.1", one)
    lock.release()
    assert take_port("127.0.0.1", one)[0] == taken


def test_port_in_use_is_skipped() -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)), pytest.raises(OSError, match="is free"):
        take_port("127.0.0.1", [port])
    # The failed attempt does not keep it locked.
    assert take_port("127.0.0.1", [port])[0] == port


async def lock_and_release(*gpus: str) -> None:
    async with gpus_locked(gpus):
        pass


async def test_replicas_on_one_gpu_take_turns() -> None:
    async with gpus_locked(["0", "1"]):
        await lock_and_release("2")
        waiting = asyncio.create_task(lock_and_release("1"))
        assert not (await asyncio.wait([waiting], timeout=0.1))[0]
    await waiting
