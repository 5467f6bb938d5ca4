"""When a call is retried, and after what pause. Time and chance come from a clock that is passed in."""

import asyncio
import random
import time
from datetime import UTC
from email.utils import parsedate_to_datetime

from triptych.router.client.errors import ConnectionLost, StatusError, TriptychError

# A retry after a 500 is useless: the server has already tried elsewhere.
AGAIN = (429, 503, 504)
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 20.0


class Clock:
    """Time and chance, so that tests do not wait."""

    def monotonic(self) -> float:
        """Seconds, for durations."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since 1970, for dates."""
        return time.time()

    def chance(self) -> float:
        """A random number from 0 to 1."""
        return random.random()

    def sleep(self, seconds: float) -> None:
        """Wait and block the thread."""
        time.sleep(seconds)

    async def sleep_async(self, seconds: float) -> None:
        """Wait and let other tasks run."""
        await asyncio.sleep(seconds)


class Retries:
    """The retries of one call: at most `retries`, none later than `seconds` from now."""

    def __init__(self, retries: int, seconds: float, clock: Clock) -> None:
        self._left = retries
        self._step = FIRST_PAUSE_SECONDS
        self._end = clock.monotonic() + seconds
        self._clock = clock

    def pause(self, error: TriptychError) -> float:
        """Seconds until the next try; raises `error` if there is none."""
        if not _is_transient(error) or self._left == 0:
            raise error
        self._left -= 1
        pause = self._asked_for(error)
        if pause is None:
            # Half of it is random, so that clients that failed together do not return together.
            pause = self._step * (0.5 + 0.5 * self._clock.chance())
            self._step = min(2 * self._step, LONGEST_PAUSE_SECONDS)
        if self._clock.monotonic() + pause > self._end:
            raise error
        return pause

    def _asked_for(self, error: TriptychError) -> float | None:
        header = error.retry_after if isinstance(error, StatusError) else None
        return None if header is None else seconds_to_wait(header, self._clock.wall())


def _is_transient(error: TriptychError) -> bool:
    return isinstance(error, ConnectionLost) or (isinstance(error, StatusError) and error.status in AGAIN)


def seconds_to_wait(retry_after: str, now: float) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or a date; None if it is neither."""
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now)
