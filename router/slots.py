"""A limited number of slots, shared fairly between clients."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class FairSlots:
    """At most `total` slots are held at a time, and at most `per_client` of them by one client.

    The rest is free for the others. Clients that wait for a slot take turns.
    """

    def __init__(self, total: int, per_client: int) -> None:
        self._free = total
        self._per_client = per_client
        self._held: Counter[str] = Counter()
        # The client whose turn is next comes first.
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def slot(self, client: str) -> AsyncIterator[None]:
        """Hold a slot. Waits for the client's turn."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, deque()).append(turn)
        self._hand_out()
        try:
            await turn
            yield
        finally:
            if turn.cancelled():
                self._forget(client, turn)
            else:
                self._free += 1
                self._held[client] -= 1
                if not self._held[client]:
                    del self._held[client]
                self._hand_out()

    def _hand_out(self) -> None:
        for client in list(self._waiting):
            if not self._free:
                return
            # A waiter that is cancelled is forgotten only when its task runs.
            turn = next((turn for turn in self._waiting[client] if not turn.cancelled()), None)
            if turn is not None and self._held[client] < self._per_client:
                self._forget(client, turn)
                # The client goes to the end of the line.
                if client in self._waiting:
                    self._waiting[client] = self._waiting.pop(client)
                self._free -= 1
                self._held[client] += 1
                turn.set_result(None)

    def _forget(self, client: str, turn: "asyncio.Future[None]") -> None:
        self._waiting[client].remove(turn)
        if not self._waiting[client]:
            del self._waiting[client]
