"""When a child that died is started again: a decision from times alone."""

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """Waits `first_delay_s`, doubled with each death within `window_s` up to `max_delay_s`.

    Gives up at the death number `unready_deaths` of a child that was never ready, since it is likely not to
    work at all, and at death number `deaths` within the window of one that was.
    """

    first_delay_s: float = 1.0
    max_delay_s: float = 30.0
    unready_deaths: int = 3
    deaths: int = 5
    window_s: float = 600.0


class Deaths:
    """The deaths of one child."""

    def __init__(self, policy: RestartPolicy) -> None:
        self._policy = policy
        self._times: deque[float] = deque()

    def delay_after(self, now: float, was_ready: bool) -> float | None:
        """Seconds to wait before the next start, or None to give up.

        `was_ready` says whether the child was ready in any of its lives.
        """
        self._times.append(now)
        while self._times[0] < now - self._policy.window_s:
            self._times.popleft()
        limit = self._policy.deaths if was_ready else self._policy.unready_deaths
        if len(self._times) >= limit:
            return None
        delay: float = self._policy.first_delay_s * 2 ** (len(self._times) - 1)
        return min(delay, self._policy.max_delay_s)
