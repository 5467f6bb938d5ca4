import asyncio

import pytest

from triptych.router.serving.turns import Turns

SECONDS = 5.0


class Clock:
    """A clock of `Turns`. Reading takes a second."""

    def __init__(self) -> None:
        self.now = 1.0
        self.readers: list[int] = []

    def __call__(self) -> float:
        return self.now

    def receive(self, turns: Turns, name: int, *, in_body: bool = False) -> None:
        """Let the connection `name` read, now or in its turn."""

        def read() -> None:
            self.now += 1.0
            self.readers.append(name)

        if turns.take(read, in_body=in_body):
            read()


@pytest.mark.parametrize(("seconds", "at_once", "in_turn"), [(SECONDS, 5, 5), (0.0, 0, 1)])
async def test_other_work_runs_between(seconds: float, at_once: int, in_turn: int) -> None:
    turns = Turns(seconds, clock := Clock())
    for name in range(12):
        clock.receive(turns, name)
    assert clock.readers == [*range(at_once)]
    assert turns.waiting == 12 - at_once
    while turns.waiting:
        before = len(clock.readers)
        await asyncio.sleep(0)
        assert len(clock.readers) - before <= in_turn
    assert clock.readers == [*range(12)]


async def test_bodies_go_first() -> None:
    turns = Turns(0.0, clock := Clock())
    for name, in_body in enumerate((False, True, False, True)):
        clock.receive(turns, name, in_body=in_body)
    for _ in range(4):
        await asyncio.sleep(0)
    assert clock.readers == [1, 3, 0, 2]


async def test_later_turn_reads_at_once() -> None:
    turns = Turns(SECONDS, clock := Clock())
    for name in range(3):
        clock.receive(turns, name)
        assert clock.readers == [*range(name + 1)]
        await asyncio.sleep(0)
