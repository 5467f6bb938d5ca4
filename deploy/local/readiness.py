"""Asks a child over HTTP whether it is ready, and beforehand whether its port is free."""

import asyncio
import contextlib
import socket

from workers.contract import READY_PATH

REPLY_SECONDS = 10.0


async def is_ready(host: str, port: int, token: str | None = None) -> bool:
    """Whether GET /ready, with `token` where there is one, answers 200."""
    header = f"Authorization: Bearer {token}\r\n" if token else ""
    try:
        async with asyncio.timeout(REPLY_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(f"GET {READY_PATH} HTTP/1.0\r\nHost: {host}\r\n{header}\r\n".encode())
                status = await reader.readline()
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except OSError:  # which TimeoutError is, too
        return False
    return status.split(b" ")[1:2] == [b"200"]


def reachable(host: str) -> str:
    """The numeric address under which what listens on `host` can be asked from this machine."""
    try:
        address = str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError:
        return host
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)


def why_taken(host: str, port: int) -> str | None:
    """Why nothing can listen there now, or None where it can."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            # As servers do: a port whose last connections are only just closed is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        return error.strerror or str(error)
    return None
