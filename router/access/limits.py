"""What a key may use a minute: the arithmetic of its limits (pure: times are passed in).

Each limit is a bucket that holds a minute's worth and fills at an even rate (GCRA): all that has to be kept
is the time at which it will be full again. It may lie more than a minute ahead: what turned out to cost more
than was estimated, and a request over the whole minute's worth, which is let through when the bucket is full
and could not be served at all otherwise, are paid off before more is taken. So the rate holds on average.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

from router.access.keys import Key
from router.errors import RequestRateExceeded, TokenRateExceeded

WINDOW_SECONDS = 60.0


class Levels(NamedTuple):
    """When a key's two buckets will be full again; full since then where it has passed."""

    requests: float
    tokens: float


class Store(Protocol):
    """Keeps the levels of every key, by the digest of the key; those it has not seen are full."""

    def change(self, key: bytes, change: Callable[[Levels], Levels]) -> Levels:
        """Replace a key's levels by `change` of them, with nobody in between; none where it raises."""
        ...


class Memory:
    """Levels of one process."""

    def __init__(self) -> None:
        self._levels: dict[bytes, Levels] = {}

    def change(self, key: bytes, change: Callable[[Levels], Levels]) -> Levels:
        levels = change(self._levels.get(key, Levels(0.0, 0.0)))
        self._levels[key] = levels
        return levels


def taken(full_at: float, cost: float, per_minute: int, now: float) -> tuple[float, float]:
    """When a bucket is full again after `cost`, and how long that has to wait: 0 when it may be taken now."""
    start = max(full_at, now)
    after = start + cost * WINDOW_SECONDS / per_minute
    # A request over the whole bucket waits until it is full, no longer.
    wait = min(after - now - WINDOW_SECONDS, start - now)
    # Rounding may leave a trace where nothing has to be waited for.
    return after, max(wait, 0.0) if wait > 1e-6 else 0.0


def remaining(full_at: float, per_minute: int, now: float) -> int:
    """How much may be taken now."""
    used = max(full_at - now, 0.0) / WINDOW_SECONDS
    # A hair's breadth of rounding must not take one away.
    return max(math.floor(per_minute * (1 - used) + 1e-6), 0)


class Allowance:
    """What one request takes of its key's limits: a request at once, tokens when it is known how many.

    `used` is set by whoever serves the request, once it is known what it really cost.
    """

    __slots__ = ("_key", "_levels", "_store", "_tokens", "used")

    def __init__(self, key: Key, store: Store, now: float) -> None:
        """Raises `RequestRateExceeded`, having taken nothing; its `headers` say what is left."""
        self._key = key
        self._store = store
        self._tokens = 0
        self.used: int | None = None
        limit = key.requests_per_minute

        def take(levels: Levels) -> Levels:
            self._levels = levels
            if limit is None:
                return levels
            full_at, wait = taken(levels.requests, 1, limit, now)
            if wait:
                raise RequestRateExceeded(
                    f"over the {limit} requests a minute of the API key", retry_after=math.ceil(wait)
                )
            return levels._replace(requests=full_at)

        try:
            self._levels = store.change(key.digest, take)
        except RequestRateExceeded as error:
            error.headers = self.headers(now)
            raise

    def take(self, tokens: int, now: float) -> None:
        """Take the estimate; raises `TokenRateExceeded`, having taken none."""
        limit = self._key.tokens_per_minute
        if limit is None:
            return

        def take(levels: Levels) -> Levels:
            self._levels = levels
            full_at, wait = taken(levels.tokens, tokens, limit, now)
            if wait:
                raise TokenRateExceeded(
                    f"about {tokens} tokens more would be over the {limit} a minute of the API key",
                    retry_after=math.ceil(wait),
                )
            return levels._replace(tokens=full_at)

        self._levels = self._store.change(self._key.digest, take)
        self._tokens = tokens

    def settle(self, now: float, *, refused: bool) -> None:
        """Take what the request used instead of the estimate; nothing at all when it was refused."""
        limits = self._key
        excess = (self.used or 0) - self._tokens
        requests = -1 if refused else 0
        if not excess and not requests:
            return

        def correct(levels: Levels) -> Levels:
            requests_at, tokens_at = levels
            if requests and limits.requests_per_minute is not None:
                requests_at -= WINDOW_SECONDS / limits.requests_per_minute
            if excess and limits.tokens_per_minute is not None:
                tokens_at = max(tokens_at, now) + excess * WINDOW_SECONDS / limits.tokens_per_minute
            return Levels(requests_at, tokens_at)

        self._levels = self._store.change(limits.digest, correct)

    def headers(self, now: float) -> tuple[tuple[bytes, bytes], ...]:
        """What is left, under the names that OpenAI uses."""
        key, levels = self._key, self._levels
        kinds = (
            (b"requests", key.requests_per_minute, levels.requests),
            (b"tokens", key.tokens_per_minute, levels.tokens),
        )
        return tuple(
            header
            for kind, limit, full_at in kinds
            if limit is not None
            for header in (
                (b"x-ratelimit-limit-" + kind, b"%d" % limit),
                (b"x-ratelimit-remaining-" + kind, b"%d" % remaining(full_at, limit, now)),
                (b"x-ratelimit-reset-" + kind, duration(full_at - now).encode()),
            )
        )


def duration(seconds: float) -> str:
    """As OpenAI writes the time until a reset, which is as Go does: `0s`, `12ms`, `1.5s`, `6m0s`."""
    milliseconds = max(math.ceil(seconds * 1000 - 1e-6), 0)
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
