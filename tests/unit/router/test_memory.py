"""The byte budget, and the limits of connections: decisions without I/O."""

import asyncio
import resource
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from triptych.router.errors import QueueFull, TooLarge
from triptych.router.http import LARGE_REPLY_BYTES as LARGE
from triptych.router.http import Message, Reply, Request, send_reply
from triptych.router.memory import Budget, Reservation, default_budget
from triptych.router.observe.metrics import Metrics
from triptych.router.serving.connections import GRACE_SECONDS, Connections
from triptych.router.settings import RouterSettings

steps = st.lists(
    st.tuples(
        st.integers(0, 3), st.sampled_from(["resize", "grow", "exceed", "release"]), st.integers(0, 150)
    )
)


@given(steps)
def test_budget_is_sum_of_reservations(steps: Sequence[tuple[int, str, int]]) -> None:
    budget = Budget(100)
    held = [Reservation(budget) for _ in range(4)]
    for index, name, size in steps:
        one = held[index]
        before, used = one.held, budget.used
        try:
            one.release() if name == "release" else getattr(one, name)(size)
        except (QueueFull, TooLarge) as error:
            wanted = size + (before if name == "grow" else 0)
            assert isinstance(error, TooLarge) == (wanted > budget.limit)  # noqa: PT017
            assert used - before + wanted > budget.limit
            assert (one.held, budget.used) == (before, used)
        else:
            grew = one.held > before
            assert not grew or name == "exceed" or budget.used <= budget.limit
        assert budget.used == sum(one.held for one in held)
    for one in held:
        one.release()
    assert budget.used == 0


def test_default_budget_is_divided() -> None:
    assert default_budget(1) >= default_budget(4) >= default_budget(1000) == 256 << 20


class Client:
    """A connection whose client owes `moved` bytes so far."""

    address = "a"
    phase: object = "body"
    moved: int | None = 0
    aborted = False

    def progress(self) -> tuple[object, int] | None:
        return None if self.moved is None else (self.phase, self.moved)

    def abort(self) -> None:
        self.aborted = True


def connections() -> Connections:
    return Connections(RouterSettings.model_construct(min_bytes_per_second=10), Metrics())


@given(st.lists(st.integers(0, 40) | st.sampled_from(["idle", "next request"]), min_size=1, max_size=80))
@example([0] * 15 + ["idle"] + [0] * 25)
@example([0] * 15 + ["next request"] + [0] * 25)
def test_slow_connection_is_closed(moves: list[int | str]) -> None:
    """Closed when no window of 20 seconds, begun after the last enough bytes, moves 200 bytes."""
    all_open, client = connections(), Client()
    all_open.add(client)
    since = start = total = 0
    new = True
    for second, moved in enumerate([0, *moves]):
        if moved == "next request":
            client.phase, new = second, True
        elif isinstance(moved, int):
            total += moved
        client.moved = None if moved == "idle" else total
        if new or total - start >= 10 * GRACE_SECONDS:
            since, start = second, total
        new = moved == "idle"
        all_open.close_slow(float(second))
        assert client.aborted == (second - since >= GRACE_SECONDS)
        if client.aborted:
            return


def test_descriptors_limit_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (10, 10))
    all_open = connections()
    assert [all_open.add(Client()) for _ in range(10)] == [True] * 9 + [False]


@pytest.mark.parametrize(
    ("size", "expected"), [(LARGE, [(LARGE, 0)]), (LARGE + 1, [(LARGE + 1,) * 2, (0, LARGE + 1)])]
)
async def test_large_reply_is_held_until_read(size: int, expected: list[tuple[int, int]]) -> None:
    """`send` waits before the last message while the client has not read the one before."""
    budget = Budget(1 << 30)
    bodies: list[tuple[int, int]] = []

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            bodies.append((len(message["body"]), budget.used))

    async def receive() -> Message:
        return await asyncio.Future()

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    await send_reply(send, Request(scope, receive, budget), Reply(200, bytes(size)), [])
    assert bodies == expected


def test_greedy_key_leaves_memory_to_another() -> None:
    budget = Budget(1000)

    def reserve(key: str, size: int) -> None:
        reservation = Reservation(budget)
        reservation.key = key
        reservation.grow(size)

    # Two thirds of the room that is shared.
    for _ in range(59):
        reserve("greedy", 10)
    with pytest.raises(QueueFull):
        reserve("greedy", 10)
    reserve("modest", 100)


def test_requests_without_keys_share_all_memory() -> None:
    budget = Budget(100)
    for _ in range(10):
        Reservation(budget).grow(10)
    assert budget.used == 100
