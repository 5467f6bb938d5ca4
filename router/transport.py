"""How the router reaches its workers: the one place that knows which HTTP stack carries the data path."""

import ssl

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport
from pydantic import SecretStr

# Below the idle time after which workers close, so that a connection is not taken up as it is dropped.
KEEPALIVE_SECONDS = 2.0

# All that a call may fail with: the transport lets some of its own errors through unmapped.
TRANSPORT_ERRORS = (httpx.HTTPError, aiohttp.ClientError, OSError)


def make_client(
    connect_seconds: float, silence_seconds: float, token: SecretStr | None = None
) -> httpx.AsyncClient:
    """A client for workers: as many connections as lanes ask for, no proxies, cookies or redirects.

    `connect_seconds` bounds the making of a connection, `silence_seconds` the wait for the next bytes.
    `token` goes with every request, so the client is for workers alone.
    Must be called, and closed, inside a running event loop.
    """
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    )
    # The context is made here, empty, because the transport would read the system's certificates.
    transport = AiohttpTransport(client=session, verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    timeout = httpx.Timeout(silence_seconds, connect=connect_seconds, pool=None)
    headers = {"authorization": f"Bearer {token.get_secret_value()}"} if token else None
    return httpx.AsyncClient(transport=transport, timeout=timeout, headers=headers, trust_env=False)


def was_refused(error: BaseException) -> bool:
    """Whether nothing listens at the address: the transport reports that as a timeout, its cause tells."""
    cause = error.__cause__
    return isinstance(error, httpx.ConnectError) or (
        isinstance(cause, aiohttp.ClientConnectorError) and isinstance(cause.os_error, ConnectionRefusedError)
    )
