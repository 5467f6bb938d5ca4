"""Replies that the protocol writes itself, before or without the application."""

import http
from collections.abc import Sequence

from triptych.router.http import Header, Reply


def early_reply(reply: Reply, headers: Sequence[Header], *, last: bool) -> tuple[bytes, bytes]:
    """Head and body of `reply` in HTTP/1.1, with `headers` besides its own.

    `last`: the connection closes after it, and it says so.
    """
    # Errors are never so large that they come in pieces.
    assert isinstance(reply.body, bytes)
    lines = [
        b"HTTP/1.1 %d %b" % (reply.status, http.HTTPStatus(reply.status).phrase.encode()),
        b"content-type: %b" % reply.content_type,
        b"content-length: %d" % len(reply.body),
        *(b"%b: %b" % header for header in (*reply.headers, *headers)),
        *([b"connection: close"] if last else []),
    ]
    return b"\r\n".join([*lines, b"", b""]), reply.body
