"""Listening sockets: bind them, duplicate them, and stop new connections to them."""

import contextlib
import ctypes
import errno
import os
import socket
import struct
import sys
from collections.abc import Sequence

# From <asm/socket.h>; Python does not define it. Only a few old architectures, without GPUs, have another
# value.
SO_ATTACH_FILTER = 26
# Drops packets that ask a listening socket for a new connection. The program sees the TCP header, whose byte
# 13 holds the flags; SYN is 2. Each line is an instruction of classic BPF: code, two jumps, value.
_DROP_SYN = (
    (0x30, 0, 0, 13),  # load the byte
    (0x45, 0, 1, 2),  # when its bit 2 is not set, jump over the next
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # keep
)


def listen(host: str, port: int) -> list[socket.socket]:
    """Bind a socket to each address of `host`, or to all addresses if it is empty. Raises `OSError`.

    The server calls `socket.listen` when it is ready to accept.
    """
    addresses = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    for family, kind, protocol, _, address in dict.fromkeys(addresses):
        try:
            bound = socket.socket(family, kind, protocol)
        except OSError as error:
            if error.errno == errno.EAFNOSUPPORT:
                continue
            raise
        sockets.append(bound)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(address)
    return sockets


def copy_of(listener: socket.socket) -> socket.socket:
    """Duplicate a socket without changing whether it blocks.

    `socket.dup` makes it blocking, in every process that has it.
    """
    return socket.socket(fileno=os.dup(listener.fileno()))


def take_no_more(sockets: Sequence[socket.socket]) -> None:
    """Stop new connections to `sockets`, in all processes that have them open. This cannot be undone.

    Closing a listening socket resets the connections that wait to be accepted, with their requests. So new
    ones are stopped first; the caller accepts those that wait and then closes. A client that connects in
    between retries after a second, as TCP does, and is refused then.
    """
    if sys.platform != "linux":
        return
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in _DROP_SYN))
    for listener in sockets:
        option = struct.pack("HL", len(_DROP_SYN), ctypes.addressof(program))
        # If the kernel cannot, or the socket is closed: connections of the last moment are reset.
        with contextlib.suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, option)
