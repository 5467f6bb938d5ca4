"""A budget of bytes for everything that the requests of one process hold: bodies, media, items, replies."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from router.errors import QueueFull, TooLarge
from router.pool.room import Room

RETRY_SECONDS = 1
# Of the memory of the machine or container; copies, the event loop and the allocator need the rest.
SHARE_OF_MEMORY = 4
LEAST_BYTES = 256 << 20


Hold = Callable[[int], object]
"""Counts so many bytes more, or raises an error."""


def unlimited(_: int) -> None:
    """A `Hold` without a limit."""


class Budget:
    """At most `limit` bytes, in the reservations of all requests together. API keys have fair shares."""

    __slots__ = ("_of_keys", "_room", "limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._of_keys: Counter[str] = Counter()
        self._room = Room(limit)

    def has_share(self, key: str, held: int, more: int) -> bool:
        """Whether a request of `key` that has `held` may have `more`. Without keys always."""
        own = self._of_keys[key]
        if not key or own + more <= self._room.little:
            return True
        return self._room.is_free_for(own - held, more, self.used)

    def add(self, key: str, size: int) -> None:
        """Count `size` bytes more, or less, for `key`."""
        self.used += size
        self._of_keys[key] += size
        if not self._of_keys[key]:
            del self._of_keys[key]


class Reservation:
    """The bytes that one request holds. It grows and shrinks with the request, and ends with `release`.

    `key` is the name of its API key, set before it holds anything; empty without keys.
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
        used = budget.used + size - self.held
        if used > budget.limit and size > self.held:
            if size > budget.limit:
                raise TooLarge(
                    f"the request and its reply need about {size} bytes of memory, and the router has "
                    f"{budget.limit}; send fewer or smaller inputs per request"
                )
            raise QueueFull(
                f"the requests in progress hold {budget.used} of {budget.limit} bytes of memory; "
                "try again later",
                retry_after=RETRY_SECONDS,
            )
        if size > self.held and not budget.has_share(self.key, self.held, size - self.held):
            raise QueueFull(
                "the requests of the API key hold its share of the memory; try again later",
                retry_after=RETRY_SECONDS,
            )
        self.exceed(size)

    def grow(self, size: int) -> None:
        """Hold `size` bytes more, see `resize`."""
        self.resize(self.held + size)

    def exceed(self, size: int) -> None:
        """Hold `size` bytes that exist already, even beyond the budget."""
        self._budget.add(self.key, size - self.held)
        self.held = size

    def release(self) -> None:
        """Hold nothing."""
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
