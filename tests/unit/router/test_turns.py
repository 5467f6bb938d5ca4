import asyncio

import pytest

from triptych.router.serving.turns import Turns

SECONDS = 5.0


class Client:
    """Reads in a second, and notes it."""

    def __init__(self, name: int, clock: "Clock", *, in_body: bool = False) -> None:
        self.name = name
        self.in_body = in_body
        self._clock = clock

    def receive(self, turns: Turns) -> None:
        if turns.take(self.resume, in_body=self.in_body):
            self.resume()

    def resume(self) -> None:
        self._clock.now += 1.0
        self._clock.readers.append(self.name)


class Clock:
    def __init__(self) -> None:
        self.now = 1.0
        self.readers: list[int] = []

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("seconds", "at_once", "in_turn"), [(SECONDS, 5, 5), (0.0, 0, 1)])
async def test_other_work_runs_between(seconds: float, at_once: int, in_turn: int) -> None:
    turns = Turns(seconds, clock := Clock())
    for name in range(12):
        Client(name, clock).receive(turns)
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
        Client(name, clock, in_body=in_body).receive(turns)
    for _ in range(4):
        await asyncio.sleep(0)
    assert clock.readers == [1, 3, 0, 2]


async def test_later_turn_reads_at_once() -> None:
    turns = Turns(SECONDS, clock := Clock())
    for name in range(3):
        Client(name, clock).receive(turns)
        assert clock.readers == [*range(name + 1)]
        await asyncio.sleep(0)
