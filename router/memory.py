"""A budget of bytes for everything that the requests of one process hold: bodies, media, items, replies.

API keys share it as they share the room of a queue.
"""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from triptych.router.errors import QueueFull, TooLarge
from triptych.router.room import Room

RETRY_SECONDS = 1
# Of the memory of the machine or container; copies, the event loop and the allocator need the rest.
SHARE_OF_MEMORY = 4
LEAST_BYTES = 256 << 20


class Budget:
    """At most `limit` bytes, in the reservations of all requests together, and of each API key."""

    __slots__ = ("by_key", "limit", "room", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self.room = Room(limit)
        self.by_key: Counter[str] = Counter()


class Reservation:
    """The bytes that one request holds. It grows and shrinks with the request, and ends with `release`.

    `key` is the name of its API key, empty without keys. It is set before the first byte is held.
    """

    __slots__ = ("_budget", "held", "key")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.held = 0
        self.key = ""

    def resize(self, size: int) -> None:
        """Hold `size` bytes.

        Raises `TooLarge` if they alone exceed the budget, and `QueueFull` if other requests hold too much of
        it. Then the reservation is unchanged.
        """
        budget = self._budget
        others = budget.used - self.held
        if size > self.held:
            if size > budget.limit:
                raise TooLarge(
                    f"the request and its reply need about {size} bytes of memory, and the router has "
                    f"{budget.limit}; send fewer or smaller inputs per request"
                )
            if others + size > budget.limit:
                raise QueueFull(
                    f"the requests in progress hold {budget.used} of {budget.limit} bytes of memory; "
                    "try again later",
                    retry_after=RETRY_SECONDS,
                )
            own = budget.by_key[self.key] - self.held
            # A request alone may have all.
            if self.key and others and not budget.room.has_share(own, size, others):
                raise QueueFull(
                    "the API key has its share of the router's memory; try again later",
                    retry_after=RETRY_SECONDS,
                )
        self.exceed(size)

    def grow(self, size: int) -> None:
        """Hold `size` bytes more, see `resize`."""
        self.resize(self.held + size)

    def exceed(self, size: int) -> None:
        """Hold `size` bytes that exist already, even beyond the budget."""
        budget = self._budget
        budget.used += size - self.held
        budget.by_key[self.key] += size - self.held
        if not budget.by_key[self.key]:
            del budget.by_key[self.key]
        self.held = size

    def release(self) -> None:
        self.exceed(0)


def default_budget(processes: int) -> int:
    """A quarter of the memory of this machine or container, divided among the router's `processes`."""
    return max(min(_limits()) // SHARE_OF_MEMORY // processes, LEAST_BYTES)


def _limits() -> Iterator[int]:
    """The memory of the machine, and the limits of the control group; both versions of the kernel's files."""
    yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    root = Path("/sys/fs/cgroup")
    for path in (root / "memory.max", root / "memory/memory.limit_in_bytes"):
        try:
            yield int(path.read_text())
        except (OSError, ValueError):
            # No such file, or "max".
            continue
