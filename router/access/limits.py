"""Rate limits of a key, per minute (pure: time is an argument).

Each limit is a token bucket that holds a minute's worth and fills at a constant rate (GCRA). Its whole state
is the time at which it is full again. That time may be more than a minute ahead: after a request that cost
more than its estimate, and after one that alone costs more than the bucket holds, which is admitted only when
the bucket is full. Later requests wait until this debt is paid, so the rate holds on average.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

from triptych.router.access.keys import Key
from triptych.router.errors import RateExceeded, RequestRateExceeded, TokenRateExceeded

WINDOW_SECONDS = 60.0


class Levels(NamedTuple):
    """The times at which a key's two buckets are full again."""

    requests: float
    tokens: float


class Store(Protocol):
    """Stores the levels of each key by its digest. Unknown keys have full buckets."""

    def change(self, key: bytes, change: Callable[[Levels], Levels]) -> Levels:
        """Apply `change` to a key's levels, atomically. If it raises, they are unchanged."""
        ...


class Memory:
    """A `Store` for one process."""

    def __init__(self) -> None:
        self._levels: dict[bytes, Levels] = {}

    def change(self, key: bytes, change: Callable[[Levels], Levels]) -> Levels:
        levels = change(self._levels.get(key, Levels(0.0, 0.0)))
        self._levels[key] = levels
        return levels


def taken(full_at: float, cost: float, per_minute: int, now: float) -> tuple[float, float]:
    """When a bucket is full again after taking `cost`, and the seconds to wait first."""
    start = max(full_at, now)
    after = start + cost * WINDOW_SECONDS / per_minute
    # A request that costs more than the bucket holds waits until it is full.
    wait = min(after - now - WINDOW_SECONDS, start - now)
    return after, max(wait, 0.0) if wait > 1e-6 else 0.0


def remaining(full_at: float, per_minute: int, now: float) -> int:
    """What the bucket holds now."""
    used = max(full_at - now, 0.0) / WINDOW_SECONDS
    # Rounding errors must not lose one.
    return max(math.floor(per_minute * (1 - used) + 1e-6), 0)


class Allowance:
    """What one request takes of its key's limits: one request at once, tokens when their number is known.

    The handler sets `used` to the tokens that were really used.
    """

    __slots__ = ("_key", "_levels", "_requests", "_store", "_tokens", "used")

    def __init__(self, key: Key, store: Store) -> None:
        self._key = key
        self._store = store
        self._levels = Levels(0.0, 0.0)
        self._requests = self._tokens = 0
        self.used: int | None = None

    def take_request(self, now: float) -> None:
        """Take one request. Raises `RequestRateExceeded`, and takes nothing then."""
        limit = self._key.requests_per_minute
        detail = f"the API key is over its limit of {limit} requests per minute"
        self._take("requests", 1, limit, now, RequestRateExceeded, detail)
        self._requests = 1

    def take_tokens(self, tokens: int, now: float) -> None:
        """Take an estimated number of tokens. Raises `TokenRateExceeded`, and takes nothing then."""
        limit = self._key.tokens_per_minute
        if limit is None:
            return
        detail = f"about {tokens} more tokens would exceed the API key's {limit} tokens per minute"
        self._take("tokens", tokens, limit, now, TokenRateExceeded, detail)
        self._tokens = tokens

    def _take(
        self, bucket: str, cost: int, limit: int | None, now: float, error: type[RateExceeded], detail: str
    ) -> None:
        def take(levels: Levels) -> Levels:
            self._levels = levels
            if limit is None:
                return levels
            full_at, wait = taken(getattr(levels, bucket), cost, limit, now)
            if wait:
                raise error(detail, retry_after=math.ceil(wait))
            return levels._replace(**{bucket: full_at})

        self._levels = self._store.change(self._key.digest, take)

    def settle(self, now: float, *, refused: bool) -> None:
        """Correct the estimate to what was used. A refused request takes nothing."""
        limits = self._key
        excess = (self.used or 0) - self._tokens
        returned = self._requests if refused else 0
        if not excess and not returned:
            return

        def correct(levels: Levels) -> Levels:
            requests_at, tokens_at = levels
            if returned and limits.requests_per_minute is not None:
                requests_at -= WINDOW_SECONDS / limits.requests_per_minute
            if excess and limits.tokens_per_minute is not None:
                tokens_at = max(tokens_at, now) + excess * WINDOW_SECONDS / limits.tokens_per_minute
            return Levels(requests_at, tokens_at)

        self._levels = self._store.change(limits.digest, correct)

    def headers(self, now: float) -> tuple[tuple[bytes, bytes], ...]:
        """Headers that say what is left, named as OpenAI's."""
        key, levels = self._key, self._levels
        kinds = (
            (b"requests", key.requests_per_minute, levels.requests),
            (b"tokens", key.tokens_per_minute, levels.tokens),
        )
        headers: list[tuple[bytes, bytes]] = []
        for kind, limit, full_at in kinds:
            if limit is not None:
                headers += [
                    (b"x-ratelimit-limit-" + kind, b"%d" % limit),
                    (b"x-ratelimit-remaining-" + kind, b"%d" % remaining(full_at, limit, now)),
                    (b"x-ratelimit-reset-" + kind, duration(full_at - now).encode()),
                ]
        return tuple(headers)


def duration(seconds: float) -> str:
    """Format seconds as OpenAI and Go do: `0s`, `12ms`, `1.5s`, `6m0s`."""
    milliseconds = max(math.ceil(seconds * 1000 - 1e-6), 0)
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
