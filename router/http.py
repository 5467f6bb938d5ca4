"""HTTP on top of ASGI: a request and its body, a reply, a client that disconnects."""

import asyncio
import io
import random
import re
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from triptych.router.access.limits import Allowance
from triptych.router.content_encoding import decoder_for
from triptych.router.errors import ClientGone, InputError, QueueFull, TooLarge
from triptych.router.memory import Budget, Reservation

if TYPE_CHECKING:
    from opentelemetry.trace import Span

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Header = tuple[bytes, bytes]

# A client that is still sending does not read its 413. So up to this much is read and discarded first.
DISCARD_BYTES = 64 << 20
# asyncio's high-water mark: a server holds so much of a reply without waiting for the client. A larger reply
# is counted, and its request ends when the client has read most of it.
LARGE_REPLY_BYTES = 64 << 10

# The `type` of OpenAI's error object, where the class of the status does not decide it.
_ERROR_TYPES = {401: "authentication_error", 429: "rate_limit_error"}
_REQUEST_ID = re.compile(rb"[0-9a-fA-F]{32}")


class Reply(NamedTuple):
    """A reply, without the headers that every reply has.

    A large body comes in pieces, each freed when it has been sent. A deque has them all, and an iterator
    makes each when it is needed, so that the reply has no `Content-Length`.
    """

    status: int
    body: bytes | deque[bytes] | Iterator[bytes]
    content_type: bytes = b"application/json"
    headers: tuple[Header, ...] = ()


class Request:
    """One HTTP request. `headers` has lower-case names; `id` is the client's or a new one.

    `reply_headers` are added to the reply. `span` is its trace, if there is one. The handler sets
    `queue_seconds` and `inference_seconds`. `cut_off`: its body was not read to the end, or its client waits
    for `100 Continue`. `allowance` is what its key may use, None without limits; `key` is the name of the
    key, empty without keys. `memory` counts the bytes that it holds, body included.
    """

    def __init__(self, scope: Scope, receive: Receive, budget: Budget) -> None:
        self.memory = Reservation(budget)
        self.http_version: str = scope.get("http_version", "1.1")
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers = _joined(scope["headers"])
        self.id = id_of(self.headers)
        self.queue_seconds = 0.0
        self.inference_seconds = 0.0
        self.span: Span | None = None
        self.key = ""
        self.allowance: Allowance | None = None
        # Without `100 Continue` the client may leave the body out, and send its next request in its place.
        self.cut_off = b"expect" in self.headers
        self.reply_headers: list[Header] = []
        self._receive = receive

    def header(self, name: str) -> str | None:
        value = self.headers.get(name.encode())
        return None if value is None else value.decode("latin-1").strip()

    @property
    def takes_stream(self) -> bool:
        """Whether its reply may have no length. HTTP/1.0 has no chunks."""
        return self.http_version != "1.0"

    async def body(self, limit: int) -> bytes:
        """The whole body, decompressed; raises `TooLarge` past `limit` bytes.

        Raises `UnsupportedEncoding` or `Invalid` when it cannot be decompressed, `QueueFull` when there is no
        memory for it, `ClientGone` when the client disconnects first.
        """
        try:
            return await self._body(limit)
        except asyncio.CancelledError:
            self.cut_off = True
            raise

    async def _body(self, limit: int) -> bytes:
        declared = self.headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared) > limit + DISCARD_BYTES:
            raise _too_large(limit)
        decoder = decoder_for(self.headers.get(b"content-encoding", b""))
        buffer = io.BytesIO()
        received = size = 0
        failure: InputError | QueueFull | None = None
        more = True
        self.cut_off = False
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            chunk: bytes = message.get("body", b"")
            more = message.get("more_body", False)
            received += len(chunk)
            if received > limit + DISCARD_BYTES:
                raise _too_large(limit)
            if failure is not None:
                continue
            try:
                # The whole body in one chunk needs no copy.
                if not more and not decoder and received == len(chunk) <= limit:
                    self.memory.grow(received)
                    return chunk
                for piece in decoder.feed(chunk) if decoder else (chunk,):
                    size += len(piece)
                    if size > limit:
                        raise _too_large(limit)
                    self.memory.grow(len(piece))
                    buffer.write(piece)
                    if decoder:
                        await asyncio.sleep(0)
                if decoder and not more:
                    decoder.finish()
            except (InputError, QueueFull) as error:
                failure = error
                buffer = io.BytesIO()
                self.memory.release()
        if failure is not None:
            raise failure
        # Not a copy: `BytesIO` hands its buffer over.
        return buffer.getvalue()

    @contextmanager
    def watched(self, gone: Callable[[], None]) -> Iterator[None]:
        """Call `gone` if the client disconnects meanwhile. The body must have been read."""
        watcher = asyncio.ensure_future(self._receive())

        def noticed(task: "asyncio.Future[Message]") -> None:
            if not task.cancelled():
                gone()

        watcher.add_done_callback(noticed)
        try:
            yield
        finally:
            watcher.remove_done_callback(noticed)
            watcher.cancel()


def id_of(headers: Mapping[bytes, bytes]) -> bytes:
    """The request id: the client's if it is valid, or a new one."""
    given = headers.get(b"x-request-id", b"")
    return given if _REQUEST_ID.fullmatch(given) else new_id()


def new_id() -> bytes:
    """A request id: 32 hexadecimal digits."""
    return b"%032x" % random.getrandbits(128)


def _joined(headers: Sequence[Header]) -> dict[bytes, bytes]:
    """Headers by name; repeated headers become a list of values (RFC 9110, 5.3)."""
    joined = dict(headers)
    if len(joined) == len(headers):
        return joined
    values: defaultdict[bytes, list[bytes]] = defaultdict(list)
    for name, value in headers:
        values[name].append(value)
    return {name: b", ".join(parts) for name, parts in values.items()}


def json_reply(status: int, content: object, headers: tuple[Header, ...] = ()) -> Reply:
    return Reply(status, orjson.dumps(content), headers=headers)


def error_body(status: int, code: str, detail: str, request_id: bytes) -> dict[str, object]:
    """The body of every error: Jina's `detail`, and OpenAI's `error`, which its SDKs show."""
    kind = _ERROR_TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    error = {"message": detail, "type": kind, "code": code}
    return {"detail": detail, "code": code, "request_id": request_id.decode(), "error": error}


async def send_reply(send: Send, request: Request, reply: Reply, headers: list[Header]) -> None:
    """Send `reply` to `request`, with `headers` besides its own. Ends when the client has read nearly all.

    Raises `ClientGone` when the client disconnects before a body in pieces is sent.
    """
    body = reply.body
    if isinstance(body, bytes) and len(body) > LARGE_REPLY_BYTES:
        request.memory.exceed(max(request.memory.held, len(body)))
        body = deque((body,))
    length: list[Header] = []
    if isinstance(body, bytes):
        length = [(b"content-length", b"%d" % len(body))]
    elif isinstance(body, deque):
        length = [(b"content-length", b"%d" % sum(map(len, body)))]
    await send(
        {
            "type": "http.response.start",
            "status": reply.status,
            "headers": [(b"content-type", reply.content_type), *length, *reply.headers, *headers],
        }
    )
    if not isinstance(body, bytes):
        await _send_pieces(send, request, body)
        body = b""
    await send({"type": "http.response.body", "body": body})


async def _send_pieces(send: Send, request: Request, body: deque[bytes] | Iterator[bytes]) -> None:
    gone = False

    def leave() -> None:
        nonlocal gone
        gone = True

    with request.watched(leave):
        for piece in _popped(body) if isinstance(body, deque) else body:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            # `send` does not wait while the client keeps up, and others need a turn.
            await asyncio.sleep(0)
            if gone:
                raise ClientGone


def _popped(pieces: deque[bytes]) -> Iterator[bytes]:
    while pieces:
        yield pieces.popleft()


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the request body is over {limit} bytes")
