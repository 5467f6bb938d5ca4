"""Slots shared by clients: limits, turns, and cancellation at any time."""

import asyncio

from hypothesis import example, given
from hypothesis import strategies as st

from triptych.router.slots import FairSlots

TOTAL, PER_CLIENT = 3, 2


class Holder:
    """A task that holds a slot of `client` until `leave` is set."""

    def __init__(self, slots: FairSlots, client: str) -> None:
        self.client = client
        self.holds = False
        self.leave = asyncio.Event()
        self.task = asyncio.create_task(self._hold(slots))

    async def _hold(self, slots: FairSlots) -> None:
        async with slots.slot(self.client):
            self.holds = True
            try:
                await self.leave.wait()
            finally:
                self.holds = False


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


steps = st.lists(
    st.tuples(
        st.sampled_from(["join", "leave", "cancel", "join and cancel", "cancel all of a client"]),
        st.integers(0, 20),
    ),
    max_size=40,
)


@given(steps)
@example([("join", 0)] * 4 + [("cancel all of a client", 0)])
async def test_no_slot_is_lost_or_left_free(plan: list[tuple[str, int]]) -> None:
    slots = FairSlots(TOTAL, PER_CLIENT)
    holders: list[Holder] = []
    for action, number in plan:
        if action.startswith("join"):
            holders.append(Holder(slots, "abc"[number % 3]))
        elif action == "cancel all of a client":
            # As when a request ends while some of its fetches wait for a slot.
            client = "abc"[number % 3]
            for holder in holders:
                if holder.client == client:
                    holder.task.cancel()
            holders = [holder for holder in holders if holder.client != client]
        elif holders:
            holder = holders.pop(number % len(holders))
            holder.leave.set()
            if action == "cancel":
                holder.task.cancel()
        if action == "join and cancel":
            # In the middle of taking a slot.
            await asyncio.sleep(0)
            holders.pop().task.cancel()
        await settle()
        held = [holder.client for holder in holders if holder.holds]
        waits = {holder.client for holder in holders if not holder.holds}
        assert len(held) <= TOTAL
        assert all(held.count(client) <= PER_CLIENT for client in held)
        # Nobody waits while there is a slot that it may take.
        assert len(held) == TOTAL or all(held.count(client) == PER_CLIENT for client in waits)
    for holder in holders:
        holder.leave.set()
    await asyncio.gather(*(holder.task for holder in holders), return_exceptions=True)
    last = [Holder(slots, client) for client in ("a", "a", "b")]
    await settle()
    assert all(holder.holds for holder in last)
    for holder in last:
        holder.task.cancel()
    await asyncio.gather(*(holder.task for holder in last), return_exceptions=True)


async def test_clients_take_turns() -> None:
    slots = FairSlots(1, 1)
    holders = [Holder(slots, client) for client in ("a", "a", "a", "a", "b", "c", "b")]
    order = []
    for _ in holders:
        await settle()
        [holder] = [holder for holder in holders if holder.holds]
        order.append(holder.client)
        holder.leave.set()
    assert order == ["a", "a", "b", "c", "a", "b", "a"]
