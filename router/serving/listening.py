"""The sockets that a router listens on: how they are made, and how they stop taking connections."""

import contextlib
import ctypes
import errno
import os
import socket
import struct
import sys
from collections.abc import Sequence

# Of <asm/socket.h>; Python does not name it. It differs on a few old architectures that no GPU or cloud has.
SO_ATTACH_FILTER = 26
# A packet to a listening socket, from its TCP header on, is dropped when it asks for a new connection
# (byte 13: flags; SYN is 2). Each line is an instruction of classic BPF: code, two jumps, value.
_DROP_SYN = (
    (0x30, 0, 0, 13),  # load the byte
    (0x45, 0, 1, 2),  # when its bit 2 is not set, jump over the next
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # keep
)


def listen(host: str, port: int) -> list[socket.socket]:
    """A bound socket for each address of `host` (all of the machine's when empty). Raises `OSError`.

    They take connections from `socket.listen` on, which the server calls when it is ready to.
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
    """The same socket once more, for this process.

    Not by `dup` of the socket itself: that makes all of them blocking, in every process that has it.
    """
    return socket.socket(fileno=os.dup(listener.fileno()))


def take_no_more(sockets: Sequence[socket.socket]) -> None:
    """Let no further connection be made to `sockets`, in whichever processes they are open.

    A listening socket that is closed resets those connections which were made and not yet accepted, with the
    requests that came on them. So new ones are kept out first, and who tries is refused when he
    tries again a second later, as TCP does by itself; once the rest has been accepted, closing harms nobody.
    There is no way back, not even by listening on them anew.
    """
    if sys.platform != "linux":
        return
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in _DROP_SYN))
    for listener in sockets:
        option = struct.pack("HL", len(_DROP_SYN), ctypes.addressof(program))
        # Where the kernel cannot, or it is closed: a connection that comes in the last moment is reset.
        with contextlib.suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, option)
