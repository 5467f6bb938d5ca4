"""What replicas on one node must not do at the same time."""

import asyncio
import socket
import tempfile
from pathlib import Path

import pytest

from deploy.ray.locks import NodeLock, held, take_port


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))


def test_a_lock_has_one_holder() -> None:
    first, second = NodeLock("gpu-0"), NodeLock("gpu-0")
    assert first.take()
    assert not second.take()
    assert NodeLock("gpu-1").take()
    first.release()
    assert second.take()


def test_a_port_is_given_once_though_nobody_listens_on_it_yet() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    one = [port]
    taken, lock = take_port("127.0.0.1", one)
    assert taken == port
    with pytest.raises(OSError, match="worker_ports"):
        take_port("127.0.0.1", one)
    lock.release()
    assert take_port("127.0.0.1", one)[0] == port


def test_a_port_that_somebody_listens_on_is_passed_over() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with pytest.raises(OSError, match="is free"):
            take_port("127.0.0.1", [listener.getsockname()[1]])
        # And it is not kept from the next who asks when it is free again.
        assert NodeLock(f"port-{listener.getsockname()[1]}").take()


async def test_replicas_that_share_a_gpu_start_one_after_another() -> None:
    order: list[str] = []
    inside = asyncio.Event()
    done = asyncio.Event()

    async def first() -> None:
        async with held(["gpu-0", "gpu-1"]):
            inside.set()
            await done.wait()
            order.append("first")

    async def second() -> None:
        await inside.wait()
        async with held(["gpu-1"]):
            order.append("second")

    tasks = [asyncio.create_task(first()), asyncio.create_task(second())]
    await inside.wait()
    async with held(["gpu-2"]):
        order.append("another GPU")
    done.set()
    await asyncio.gather(*tasks)
    assert order == ["another GPU", "first", "second"]
