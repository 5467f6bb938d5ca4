"""How the router reaches its workers: the one place that knows which HTTP stack carries the data path.

That is aiohttp and not httpx, which every other call here is made with: a batch there and back costs 0.10 to
0.18 ms of CPU with aiohttp, 0.25 to 0.34 ms with httpx on top of it (concurrency 4 and 1).
"""

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import aiohttp
from pydantic import SecretStr
from yarl import URL

from workers.shared import contract

# Below the idle time after which workers close, so that a connection is not taken up as it is dropped.
KEEPALIVE_SECONDS = 2.0

# All that a call may fail with.
TRANSPORT_ERRORS = (aiohttp.ClientError, OSError)


class Body(Protocol):
    """A body that is still coming."""

    def iter_any(self) -> AsyncIterator[bytes]:
        """Its bytes, as they arrive."""
        ...


class WorkerReply(Protocol):
    """A worker's reply of which the head is there; header names in any case."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def content(self) -> Body: ...
    async def read(self) -> bytes:
        """The whole body."""
        ...


class WorkerClient(Protocol):
    """Calls to workers. Each may raise any of `TRANSPORT_ERRORS`; leaving its context early hangs up."""

    def get(self, url: URL, seconds: float) -> AbstractAsyncContextManager[WorkerReply]:
        """A GET that may take `seconds` in all."""
        ...

    def post(
        self, url: URL, body: bytes, headers: Mapping[str, str]
    ) -> AbstractAsyncContextManager[WorkerReply]:
        """A POST, for as long as the worker is not silent for too long."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


class AiohttpClient:
    """A `WorkerClient` with as many connections as lanes ask for, without proxies, cookies or redirects.

    `connect_seconds` bounds the making of a connection, `silence_seconds` the wait for the next bytes.
    `token` goes with every request, so the client is for workers alone, and a name that tells it from others.
    Must be made, and closed, inside a running event loop.
    """

    def __init__(
        self, connect_seconds: float, silence_seconds: float, token: SecretStr | None = None
    ) -> None:
        self._connect_seconds = connect_seconds
        headers = {contract.ROUTER_HEADER: secrets.token_hex(8)}
        if token:
            headers["authorization"] = f"Bearer {token.get_secret_value()}"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            headers=headers,
            skip_auto_headers=("accept", "accept-encoding", "content-type", "user-agent"),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=connect_seconds, sock_read=silence_seconds
            ),
        )

    def get(self, url: URL, seconds: float) -> AbstractAsyncContextManager[WorkerReply]:
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=min(seconds, self._connect_seconds))
        return self._session.get(url, timeout=timeout, allow_redirects=False)

    def post(
        self, url: URL, body: bytes, headers: Mapping[str, str]
    ) -> AbstractAsyncContextManager[WorkerReply]:
        return self._session.post(url, data=body, headers=headers, allow_redirects=False)

    async def close(self) -> None:
        await self._session.close()


def was_sent(error: BaseException) -> bool:
    """Whether the connection was made, so that the worker may have had what was sent."""
    return not isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)


def was_refused(error: BaseException) -> bool:
    """Whether nothing listens at the address."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    return isinstance(cause, ConnectionRefusedError)
