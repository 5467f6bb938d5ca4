"""Exponential backoff for restarts, by how long each run served."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """Waits `first_delay_s` after the first death, then twice as long each time, at most `max_delay_s`.

    A child that served for `window_s` starts over at the first delay. A deployment that is starting ends
    after `start_deaths` deaths of a child that was never ready.
    """

    first_delay_s: float = 1.0
    max_delay_s: float = 30.0
    window_s: float = 600.0
    start_deaths: int = 3


class Deaths:
    """The deaths of one child; `count` starts over when it served for the window."""

    def __init__(self, policy: RestartPolicy) -> None:
        self._policy = policy
        self._delay = policy.first_delay_s
        self.count = 0

    def delay_after(self, served_s: float) -> float:
        """Seconds to wait before the next start, after a run that served for `served_s`."""
        if served_s >= self._policy.window_s:
            self.count, self._delay = 0, self._policy.first_delay_s
        self.count += 1
        delay = self._delay
        self._delay = min(2 * delay, self._policy.max_delay_s)
        return delay
