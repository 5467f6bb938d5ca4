"""Readiness and liveness probes over HTTP."""

import asyncio
import socket
from http import HTTPStatus

import httpx

from triptych.workers.shared.contract import LIVE_PATH, READY_PATH

# Routers and workers answer /ready at once. On Ray a hanging worker fails three probes, 2 s apart, before
# Serve replaces it: after about 21 s.
REPLY_SECONDS = 5.0


async def is_ready(host: str, port: int, token: str | None = None) -> bool:
    """Whether GET /ready answers 200. Sends `token` if there is one."""
    return await _status(host, port, READY_PATH, token, REPLY_SECONDS) == HTTPStatus.OK


async def is_live(host: str, port: int, seconds: float) -> bool | None:
    """Whether GET /live answers 200 within `seconds`, None if nothing listens. It needs no token."""
    status = await _status(host, port, LIVE_PATH, None, seconds)
    return None if status is None else status == HTTPStatus.OK


async def _status(host: str, port: int, path: str, token: str | None, seconds: float) -> int | None:
    """The status of the reply, 0 without a reply in time, None if nothing listens."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = httpx.URL(scheme="http", host=host, port=port, path=path)
    try:
        async with asyncio.timeout(seconds), httpx.AsyncClient(trust_env=False, verify=False) as client:
            return (await client.get(url, headers=headers)).status_code
    except httpx.ConnectError:
        return None
    except (httpx.HTTPError, TimeoutError):
        return 0


def reachable(host: str) -> str:
    """The numeric address that reaches a server on `host` from this machine."""
    try:
        address = str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError:
        return host
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)
