"""Sends the head of a reply together with the beginning of its body."""

import asyncio
from typing import Any


class JoinedHead:
    """A transport that joins the two in one write.

    uvicorn writes them apart, and each write is a system call and a packet.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send `data` now, or with the next piece if it is a head. `100 Continue` has no body."""
        if self._head:
            head, self._head = self._head, b""
            self._transport.writelines((head, data))
        elif data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 100"):
            # A piece of a body that looks like a head only waits for the next piece.
            self._head = data
        else:
            self._transport.write(data)

    def flush(self) -> None:
        """Send a head without a body."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        self.flush()
        self._transport.close()
