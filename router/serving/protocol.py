"""uvicorn's HTTP/1.1 protocol with limits on the request head, and without upgrades.

This file holds everything that uses uvicorn's private interfaces, besides the overrides in `server.py`. They
were tested with uvicorn 0.54. The type checker names those that a new version lacks.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from triptych.router.api.app import App
from triptych.router.errors import Unavailable
from triptych.router.http import Header, error_body, json_reply, new_id
from triptych.router.memory import RETRY_SECONDS
from triptych.router.serving.early_reply import early_reply
from triptych.router.serving.joined_head import JoinedHead

# Node allows 16 KiB, nginx 32 KiB. A head that arrives in one piece may be somewhat longer.
MAX_HEAD_BYTES = 64 << 10
# Apache allows 100 header fields, Node 2,000. Each takes some hundred bytes, however short it is.
MAX_FIELDS = 256
# Requests on one connection that wait for the one before them. Hardly any client sends two.
MAX_PIPELINED = 32
# As nginx's client_header_timeout.
HEAD_SECONDS = 60.0

_HEAD_TOO_LARGE = (
    431,
    "HTTP_HEAD_TOO_LARGE",
    f"the headers are over {MAX_HEAD_BYTES} bytes or {MAX_FIELDS} fields",
)


class _Excess(Exception):
    """A request is over a limit. The arguments are those of `Protocol._refuse`."""


class Protocol(HttpToolsProtocol):
    """Handles what comes before the application `App`, and so before API keys.

    - `turn_away`: under overload, the application refuses a request by its head, before the body is read.
    - A head (request line and headers) that is too long or too slow is refused and its connection closed.
      uvicorn has no limit for either. Trailers count as part of the head, and are ignored.
    - A connection with too many pipelined requests is closed when those that wait are answered.
    - An upgrade to another protocol is ignored (RFC 9110, 7.8). Java's HTTP client and `curl --http2` ask for
      `h2c` on each new connection, and uvicorn would take the body for the beginning of that protocol
      (https://github.com/Kludex/uvicorn/issues/2722).
    - A body that is malformed is refused at once; the application sees a client that disconnects.
    - The application's `connections` limit the number of connections and close slow ones.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = False
        self._in_body = False
        self._advanced = False
        self._broken = False
        self._unfinished_bytes = 0
        self._fields = self._field_bytes = 0
        self._received = 0
        self._sends = 0
        self.address = ""
        self._late: asyncio.TimerHandle | None = None
        self._turned_away = False
        self._last = False
        self._pieces: list[bytes] = []
        # The request that the application has; `cycle` is the last one of a pipeline.
        self._current: RequestResponseCycle | None = None
        self._application = cast(App, self.config.app)
        self._connections = self._application.connections
        self._turns = self._connections.turns

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast(asyncio.Transport, JoinedHead(transport)))
        self.address = self.client[0] if self.client else ""
        if self._connections.add(self):
            self._await_head(HEAD_SECONDS)
        else:
            error = Unavailable("too many connections", retry_after=RETRY_SECONDS)
            self._refuse(error.status, error.code, error.detail, error.headers)

    def connection_lost(self, exc: Exception | None) -> None:
        self._await_head_no_more()
        self._connections.remove(self)
        if self._current is not None:
            self._current.disconnected = True
            self._current.message_event.set()
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        self._sends += 1
        super().resume_writing()

    def progress(self) -> tuple[object, int] | None:
        if unsent := self.transport.get_write_buffer_size():
            # While writing is paused, the buffer only shrinks.
            return ("reply", id(self.cycle), self._sends), -unsent
        if self._in_body and (self._pieces or not self.flow.read_paused):
            return "body", self._received
        return None

    def abort(self) -> None:
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._broken:
            # Reading goes on only to notice that the client disconnects.
            return
        in_body = self._in_body and not self._turned_away
        if not self._pieces and self._turns.take(self.resume, in_body=in_body):
            self._read(data)
            return
        self._pieces.append(data)
        self.flow.pause_reading()
        # A connection that waits for its turn is not idle.
        self._unset_keepalive_if_required()
        if not self._in_head:
            self._await_head_no_more()

    def resume(self) -> None:
        """Read what was received while the connection waited for its turn."""
        pieces, self._pieces = self._pieces, []
        if not self.transport.is_closing():
            self.flow.resume_reading()
        for piece in pieces:
            if not self._broken and not self.transport.is_closing():
                self._read(piece)

    def _read(self, data: bytes) -> None:
        self._received += len(data)
        self._unset_keepalive_if_required()
        self._advanced = False
        try:
            self._parse(data)
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, _Excess):
                self._refuse(*error.__context__.args)
            else:
                self._refuse(400, "HTTP_INVALID", f"invalid HTTP request: {error}")
            return
        self._unfinished_bytes = 0 if self._advanced else self._unfinished_bytes + len(data)
        if self._unfinished_bytes > MAX_HEAD_BYTES:
            self._refuse(*_HEAD_TOO_LARGE)
            return
        if self._late is None and self._in_head:
            self._await_head(HEAD_SECONDS)
        elif self._late is None and not self._busy:
            # Idle until the next head begins, as after a request that the application answers.
            self._await_head(self.timeout_keep_alive)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        # The time for a head starts with its first byte.
        self._await_head_no_more()
        self._in_head = self._advanced = True
        self._fields = self._field_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields += 1
        self._field_bytes += len(name) + len(value)
        if self._fields > MAX_FIELDS or self._field_bytes > MAX_HEAD_BYTES:
            raise _Excess(*_HEAD_TOO_LARGE)
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= MAX_PIPELINED:
            raise _Excess(400, "HTTP_INVALID", f"over {MAX_PIPELINED} pipelined requests")
        self._in_head = False
        self._await_head_no_more()
        if self.parser.should_upgrade():
            return
        if not (self._busy or self.flow.write_paused):
            path = self.url.partition(b"?")[0]
            refusal = self._application.turn_away(self.parser.get_method(), path, self.headers)
            if refusal is not None:
                self._turned_away = self._in_body = True
                reply, headers, last = refusal
                self._last = last or self.expect_100_continue or not self.parser.should_keep_alive()
                self.transport.writelines(early_reply(reply, headers, last=self._last))
                if self.expect_100_continue:
                    # The client may leave the body out, and send its next request in its place.
                    self.transport.close()
                return
        super().on_headers_complete()
        # Not before: uvicorn may refuse the head, and then it has no place in the pipeline.
        self._in_body = True

    def on_body(self, body: bytes) -> None:
        self._advanced = True
        if not self._turned_away and not self.parser.should_upgrade():
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body = False
        if self._turned_away:
            self._turned_away = False
            if self._last:
                # Not earlier: closing while the client sends would reset the connection.
                self.transport.close()
        elif not self.parser.should_upgrade():
            super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._current = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        cast(JoinedHead, self.transport).flush()
        if self._broken and not self.pipeline:
            self.transport.close()
        super().on_response_complete()
        if self._pieces:
            self._unset_keepalive_if_required()

    @property
    def _busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _parse(self, data: bytes) -> None:
        """Feed the parser. The head of a request with `Upgrade` is parsed again, without that header."""
        pieces = [memoryview(data)]
        while pieces:
            piece = pieces.pop()
            try:
                self.parser.feed_data(piece)
            except httptools.HttpParserUpgrade as upgrade:
                method = self.parser.get_method()
                if method == b"CONNECT":
                    self._refuse(400, "HTTP_INVALID", "CONNECT is not supported")
                    return
                lines = [b"%b %b HTTP/%b" % (method, self.url, self.parser.get_http_version().encode())]
                lines += [b"%b: %b" % (name, value) for name, value in self.headers if name != b"upgrade"]
                head = b"\r\n".join([*lines, b"", b""])
                pieces += [piece[upgrade.args[0] :], memoryview(head)]
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)

    def _await_head(self, seconds: float) -> None:
        self._late = self.loop.call_later(seconds, self._head_is_late)

    def _await_head_no_more(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _head_is_late(self) -> None:
        self._late = None
        if self._in_head:
            self._refuse(408, "HTTP_HEAD_TIMEOUT", f"the headers did not arrive within {HEAD_SECONDS:g} s")
        else:
            self.shutdown()

    def _refuse(self, status: int, code: str, detail: str, headers: Sequence[Header] = ()) -> None:
        """Send an error and close the connection; a request whose body is broken ends.

        While another request is being answered, only close the connection afterwards.
        """
        if self.transport.is_closing():
            return
        self._broken = True
        if self._turned_away or (self._in_body and self.cycle.response_complete):
            # It has its reply.
            self.transport.close()
            return
        if self._in_body and self.pipeline:
            # It is not answered; the connection closes after the requests before it.
            self.pipeline.popleft()
            return
        if self._busy and (not self._in_body or self.pipeline or self.cycle.response_started):
            self.shutdown()
            return
        request_id = new_id()
        reply = json_reply(status, error_body(status, code, detail, request_id))
        # Only the headers that have arrived.
        cors = self._application.cors.headers(dict(self.headers or ()))
        own = (b"x-request-id", request_id)
        self.transport.writelines(early_reply(reply, [own, *headers, *cors], last=True))
        self.transport.close()
