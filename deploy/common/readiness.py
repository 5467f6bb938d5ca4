"""Readiness and liveness probes over HTTP, and whether a port is free."""

import asyncio
import contextlib
import socket

from workers.shared.contract import LIVE_PATH, READY_PATH

# Routers and workers answer /ready at once. On Ray a hanging worker fails three probes, 2 s apart, before
# Serve replaces it: after about 21 s.
REPLY_SECONDS = 5.0


async def is_ready(host: str, port: int, token: str | None = None) -> bool:
    """Whether GET /ready answers 200. Sends `token` if there is one."""
    with contextlib.suppress(ConnectionRefusedError):
        return await _answers(host, port, READY_PATH, token, REPLY_SECONDS)
    return False


async def is_live(host: str, port: int, seconds: float) -> bool | None:
    """Whether GET /live answers 200 within `seconds`, None if nothing listens. It needs no token."""
    try:
        return await _answers(host, port, LIVE_PATH, None, seconds)
    except ConnectionRefusedError:
        return None


async def _answers(host: str, port: int, path: str, token: str | None, seconds: float) -> bool:
    header = f"Authorization: Bearer {token}\r\n" if token else ""
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n{header}\r\n".encode())
                status = await reader.readline()
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except ConnectionRefusedError:
        raise
    except (OSError, ValueError):  # a timeout is an OSError, a line without an end a ValueError
        return False
    return status.split(b" ")[1:2] == [b"200"]


def reachable(host: str) -> str:
    """The numeric address that reaches a server on `host` from this machine."""
    try:
        address = str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError:
        return host
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)


def why_taken(host: str, port: int) -> str | None:
    """Why a server cannot listen on this port now, None if it can."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            # Servers set this too: a port whose last connections have just closed is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        return error.strerror or str(error)
    return None
