import asyncio
from collections.abc import Callable

import pytest

from triptych.router.serving.turns import Turns

SECONDS = 5.0


class Client:
    """Reads a piece in a second, and notes what happens."""

    def __init__(self, name: int, seen: list[str], wait: Callable[[], None]) -> None:
        self._name = name
        self._seen = seen
        self._wait = wait

    def read(self, data: bytes) -> None:
        self._wait()
        self._seen.append(f"{self._name} {data.decode()}")

    def pause(self) -> None:
        self._seen.append(f"{self._name} pauses")

    def resume(self, data: bytes) -> None:
        self.read(data)


@pytest.mark.parametrize(("seconds", "pieces"), [(SECONDS, 5), (0.0, 1)])
async def test_other_work_runs_between_pieces(seconds: float, pieces: int) -> None:
    now = 1.0

    def wait() -> None:
        nonlocal now
        now += 1.0

    seen: list[str] = []
    turns = Turns(seconds, lambda: now)
    clients = [Client(name, seen, wait) for name in range(12)]
    for client in clients:
        turns.read(client, b"first")
    turns.read(clients[-1], b"second")
    wanted = [f"{name} first" for name in range(12)] + ["11 second"]
    at_once = pieces if seconds else 0
    assert seen == wanted[:at_once] + [f"{name} pauses" for name in [*range(at_once, 12), 11]]
    read: list[str] = wanted[:at_once]
    del seen[:]
    while len(read) < len(wanted):
        await asyncio.sleep(0)
        assert len(seen) <= pieces
        read += seen
        del seen[:]
    assert read == wanted


async def test_later_turn_reads_at_once() -> None:
    seen: list[str] = []
    turns = Turns(SECONDS, lambda: 1.0)
    for name in range(3):
        turns.read(Client(name, seen, lambda: None), b"piece")
        await asyncio.sleep(0)
    assert seen == ["0 piece", "1 piece", "2 piece"]
