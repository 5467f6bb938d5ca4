"""Messages over a TCP connection: four bytes of length, then MessagePack.

In the processes that send load, locust has patched `socket`, so this waits cooperatively there.
"""

import contextlib
import socket
import threading
from typing import Any, Generic, TypeVar

import msgspec

Received = TypeVar("Received")


class Channel(Generic[Received]):
    """One end of a connection, which receives messages of one type: `kind`, a union of structs."""

    def __init__(self, connection: socket.socket, kind: Any) -> None:
        self._socket = connection
        self._file = connection.makefile("rb")
        self._decoder = msgspec.msgpack.Decoder(kind)
        self._sending = threading.Lock()

    def send(self, message: msgspec.Struct) -> None:
        """Raises `OSError` if the connection is lost."""
        data = msgspec.msgpack.encode(message)
        with self._sending:
            self._socket.sendall(len(data).to_bytes(4, "big") + data)

    def receive(self, timeout: float | None = None) -> Received:
        """Wait for the next message. Raises `EOFError` if the connection is closed, and `OSError`."""
        self._socket.settimeout(timeout)
        data = self._read(int.from_bytes(self._read(4), "big"))
        message: Received = self._decoder.decode(data)
        return message

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _read(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise EOFError("the connection is closed")
        return data
