"""A connection: HTTP/1.1 as uvicorn speaks it, with bounds on a request's head, and deaf to upgrades."""

import asyncio
import http
from collections.abc import Callable, Sequence
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from router.api.cors import Cors
from router.http import Header, Reply, error_body, json_reply, new_id

# Node takes 16 KiB, nginx 32 KiB. A head that arrives in one piece may be somewhat longer.
MAX_HEAD_BYTES = 64 << 10
# As nginx's client_header_timeout.
HEAD_SECONDS = 60.0


TurnAway = Callable[[bytes, bytes, Sequence[Header]], tuple[Reply, list[Header]] | None]
"""The reply to a request by its method, path and headers, where that is certain without its body."""


class Protocol(HttpToolsProtocol):
    """uvicorn's, but for what happens before the application is called, and so before a key is read.

    A request that the application turns away by its head is answered without calling it.

    A head, which is a request's first line and its headers, that is too long or is not there in time is
    refused, and its connection closed: uvicorn would wait for ever, and keep all that comes.

    A request for another protocol is answered as if it had not asked (RFC 9110, 7.8): Java's HTTP client and
    `curl --http2` ask for `h2c` with every request on a new connection. uvicorn takes their body for the
    beginning of that protocol (https://github.com/Kludex/uvicorn/issues/2722).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = False
        self._begins = False
        self._head_bytes = 0
        self._late: asyncio.TimerHandle | None = None
        self._turn_away: TurnAway | None = getattr(self.config.app, "turn_away", None)
        self._turned_away = False
        self._cors: Cors = getattr(self.config.app, "cors", Cors(()))

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._await_head_no_more()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._begins = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._stay(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError as error:
            self._refuse(400, "HTTP_INVALID", f"this is no HTTP request: {error}")
            return
        if self._in_head and not self._begins:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(431, "HTTP_HEAD_TOO_LARGE", f"the headers are over {MAX_HEAD_BYTES} bytes")
        if self._late is None and self._in_head:
            self._await_head(HEAD_SECONDS)
        elif self._late is None and not self._busy:
            # As after a request that the application answers: idle until the next head begins.
            self._await_head(self.timeout_keep_alive)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        # The time of a head begins with it and not where the connection became idle.
        self._await_head_no_more()
        self._in_head = self._begins = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._await_head_no_more()
        if self.parser.should_upgrade():
            return
        if self._turn_away is not None and not self._busy and not self.expect_100_continue:
            path = self.url.partition(b"?")[0]
            refusal = self._turn_away(self.parser.get_method(), path, self.headers)
            if refusal is not None:
                self._turned_away = True
                self._answer(*refusal, last=not self.parser.should_keep_alive())
                return
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._turned_away and not self.parser.should_upgrade():
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._turned_away:
            self._turned_away = False
        elif not self.parser.should_upgrade():
            super().on_message_complete()

    @property
    def _busy(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def _stay(self, rest: bytes) -> None:
        """Read the request that wants to leave HTTP/1.1 once more, without that wish, and then the `rest`."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refuse(400, "HTTP_INVALID", "this is no proxy")
            return
        lines = [b"%b %b HTTP/%b" % (method, self.url, self.parser.get_http_version().encode())]
        lines += [b"%b: %b" % (name, value) for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.data_received(b"\r\n".join([*lines, b"", b""]) + rest)

    def _await_head(self, seconds: float) -> None:
        self._late = self.loop.call_later(seconds, self._head_is_late)

    def _await_head_no_more(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _head_is_late(self) -> None:
        self._late = None
        if self._in_head:
            self._refuse(408, "HTTP_HEAD_TIMEOUT", f"the headers were not there within {HEAD_SECONDS:g} s")
        else:
            self.shutdown()

    def _refuse(self, status: int, code: str, detail: str) -> None:
        """Say why this connection is closed; one that has a reply to send yet only is when that is sent."""
        if self.transport.is_closing():
            return
        self.flow.pause_reading()
        if not self._busy:
            request_id = new_id()
            reply = json_reply(status, error_body(status, code, detail, request_id))
            # As far as they have come.
            cors = self._cors.headers(dict(self.headers or ()))
            self._answer(reply, [(b"x-request-id", request_id), *cors], last=True)
        else:
            self.shutdown()

    def _answer(self, reply: Reply, headers: Sequence[Header], *, last: bool) -> None:
        """Send `reply` with `headers` besides its own; the `last` one closes the connection."""
        lines = [
            b"HTTP/1.1 %d %b" % (reply.status, http.HTTPStatus(reply.status).phrase.encode()),
            b"content-type: %b" % reply.content_type,
            b"content-length: %d" % len(reply.body),
            *(b"%b: %b" % header for header in (*reply.headers, *headers)),
            *([b"connection: close"] if last else []),
        ]
        self.transport.write(b"\r\n".join([*lines, b"", reply.body]))
        if last:
            self.shutdown()
