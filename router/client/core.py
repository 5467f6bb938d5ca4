"""What both clients share: how to reach a deployment, and when a call is retried, after what pause.

Time and chance come from a clock that is passed in.
"""

import asyncio
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx

from triptych.router.client.errors import ConnectionLost, ReplyInvalid, StatusError, TriptychError

TIMEOUT_SECONDS = 60.0
RETRIES = 5
MAX_WAIT_SECONDS = 180.0
CONNECT_SECONDS = 10.0
# Time for the server's own 504 to arrive, which says more than a timeout here.
GRACE_SECONDS = 5.0
# The server's limit for `x-request-timeout-seconds`.
LONGEST_TIMEOUT_SECONDS = 3600.0
# A proxy that loses the router says 502. A retry after a 500 is useless: the router has tried elsewhere.
AGAIN = (429, 502, 503, 504)
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 20.0
_KEY = re.compile("[!-~]+")

_H = TypeVar("_H")


class Clock:
    """Time and chance. Tests replace them, so that they do not wait."""

    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)
    chance = staticmethod(random.random)
    sleep = staticmethod(time.sleep)
    sleep_async = staticmethod(asyncio.sleep)


class Core:
    """How to reach a deployment, and how long to keep trying."""

    def __init__(
        self,
        base_url: str,
        api_key: str | None,
        timeout: float,
        retries: int,
        max_wait: float,
        clock: Clock | None,
    ) -> None:
        if not base_url.lower().startswith(("http://", "https://")):
            raise ValueError(f"base_url must start with http:// or https://: {base_url!r}")
        if api_key is not None and not _KEY.fullmatch(api_key):
            # Without the key, since errors are logged.
            raise ValueError("api_key may have visible ASCII characters only")
        if timeout <= 0 or retries < 0 or max_wait < 0:
            raise ValueError("timeout must be over 0, retries and max_wait at least 0")
        self.clock = clock or Clock()
        self.retries, self.max_wait = retries, max_wait
        headers = {
            "content-type": "application/json",
            "x-request-timeout-seconds": f"{min(timeout, LONGEST_TIMEOUT_SECONDS):g}",
        }
        if api_key is not None:
            headers["authorization"] = f"Bearer {api_key}"
        self._http: dict[str, Any] = {
            # Users of other clients are used to an address that ends in /v1.
            "base_url": base_url.rstrip("/").removesuffix("/v1"),
            "headers": headers,
            "timeout": httpx.Timeout(timeout + GRACE_SECONDS, connect=min(CONNECT_SECONDS, timeout)),
        }

    def open(self, kind: Callable[..., _H], transport: object) -> _H:
        """A client of httpx, of this `kind`. Raises ValueError if it cannot be made."""
        try:
            return kind(**self._http, transport=transport)
        except (httpx.InvalidURL, ImportError, OSError) as error:
            where = "base_url, or a proxy or certificate file in the environment"
            raise ValueError(f"{where}, cannot be used: {error}") from error


class Retries:
    """The retries of one call that starts now."""

    def __init__(self, core: Core) -> None:
        self._left = core.retries
        self._step = FIRST_PAUSE_SECONDS
        self._end = core.clock.monotonic() + core.max_wait
        self._clock = core.clock

    def pause(self, error: TriptychError) -> float:
        """Seconds until the next try. Raises `error` when no further try follows."""
        refusal = error if isinstance(error, StatusError) and error.status in AGAIN else None
        if not (refusal or isinstance(error, ConnectionLost)) or self._left == 0:
            raise error
        self._left -= 1
        pause = seconds_to_wait(refusal.retry_after or "", self._clock.wall()) if refusal else None
        if not pause:
            # Half of it is random, so that clients that failed together do not return together.
            pause = self._step * (0.5 + 0.5 * self._clock.chance())
            self._step = min(2 * self._step, LONGEST_PAUSE_SECONDS)
        if self._clock.monotonic() + pause > self._end:
            raise error
        return pause


def seconds_to_wait(retry_after: str, now: float) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or a date; None if it is neither."""
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now)


@contextmanager
def failures() -> Iterator[None]:
    """Translate httpx's exceptions into ours."""
    try:
        yield
    except httpx.TransportError as error:
        reason = str(error) or type(error).__name__
        raise ConnectionLost(f"no reply from {error.request.url}: {reason}") from error
    except httpx.DecodingError as error:
        raise ReplyInvalid(f"the reply cannot be decoded: {error}") from error
