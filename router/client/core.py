"""Configuration and failures that both clients share."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from triptych.router.client.errors import ConnectionLost, ReplyInvalid
from triptych.router.client.retries import Clock, Retries

TIMEOUT_SECONDS = 60.0
RETRIES = 5
MAX_WAIT_SECONDS = 180.0
CONNECT_SECONDS = 10.0
# Time for the server's own 504 to arrive, which says more than a timeout here.
GRACE_SECONDS = 5.0
# The server's limit for `x-request-timeout-seconds`.
LONGEST_TIMEOUT_SECONDS = 3600.0


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
        if timeout <= 0 or retries < 0 or max_wait < 0:
            raise ValueError("timeout must be over 0, retries and max_wait at least 0")
        # Users of other clients are used to an address that ends in /v1.
        self.base_url = base_url.rstrip("/").removesuffix("/v1")
        self.clock = clock or Clock()
        self.timeout = httpx.Timeout(timeout + GRACE_SECONDS, connect=min(CONNECT_SECONDS, timeout))
        self.headers = {
            "content-type": "application/json",
            "x-request-timeout-seconds": f"{min(timeout, LONGEST_TIMEOUT_SECONDS):g}",
        }
        if api_key is not None:
            self.headers["authorization"] = f"Bearer {api_key}"
        self._retries = retries
        self._max_wait = max_wait

    def tries(self) -> Retries:
        """The tries of one call that starts now."""
        return Retries(self._retries, self._max_wait, self.clock)


@contextmanager
def failures() -> Iterator[None]:
    """Translate httpx's exceptions into ours."""
    try:
        yield
    except (
        httpx.TimeoutException,
        httpx.NetworkError,
        httpx.RemoteProtocolError,
        httpx.ProxyError,
    ) as error:
        reason = str(error) or type(error).__name__
        raise ConnectionLost(f"no reply from {error.request.url}: {reason}") from error
    except httpx.DecodingError as error:
        raise ReplyInvalid(f"the reply cannot be decoded: {error}") from error
