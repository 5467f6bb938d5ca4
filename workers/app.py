"""A worker's HTTP side, as one ASGI callable: the contract of `workers.shared.contract`, and readiness."""

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec
from pydantic import SecretStr

from workers import tracing
from workers.admission import Admission, Stay
from workers.canary import Canaries
from workers.encoding import EngineDied, Service, encode_batch
from workers.metrics import CONTENT_TYPE, WorkerMetrics
from workers.shared import logs
from workers.shared.contract import (
    DEAD,
    DRAINING,
    ENCODE_PATH,
    INFO_PATH,
    LIVE_PATH,
    METRICS_PATH,
    OVERLOADED,
    READY_PATH,
    REQUESTS_HEADER,
    ROUTER_HEADER,
    SPACE_HEADER,
    STATE_HEADER,
    WAIT_HEADER,
    WRONG,
    EncodeRequest,
    decode_request,
    encode_info,
    space_header,
)

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# Encoded media of a whole batch; the router's own limits are far below.
MAX_BODY_BYTES = 256 * 2**20


class _WrongVectors(Exception):
    """The canaries failed while the batch was in the engine."""


# What a batch that is cut is answered with, if nothing of it was sent.
_ENDS: dict[type[Exception], tuple[str, str]] = {
    EngineDied: (DEAD, "the engine has died"),
    _WrongVectors: (WRONG, "the engine gives wrong vectors"),
}


class WorkerApp:
    """Serves one service, with `token` only to who sends it.

    `draining` turns it away from new work while what it has goes on. When `canaries` say that its vectors are
    wrong, it takes no work and finishes none.
    """

    def __init__(self, service: Service, max_waiting_items: int, token: SecretStr | None = None) -> None:
        self._service = service
        self._admission = Admission(max_waiting_items)
        self._expected = f"Bearer {token.get_secret_value()}".encode() if token else None
        self._metrics = WorkerMetrics(lambda: self._admission.items, lambda: service.steps)
        self._tracer = tracing.configured()
        self.canaries = Canaries(service, self._metrics)
        self.draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if not self._known(scope):
            return await _reply(
                send, 401, b'{"reason": "send this worker\'s WORKER_TOKEN"}', ("www-authenticate", "Bearer")
            )
        match scope["method"], scope["path"]:
            case "POST", path if path == ENCODE_PATH:
                headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
                if ids := headers.get(REQUESTS_HEADER.encode()):
                    logs.requests.set(tuple(ids.split(",")))
                with tracing.span(self._tracer, headers, self._service.info.task):
                    await self._encode(headers.get(ROUTER_HEADER.encode(), ""), receive, send)
            case "GET", path if path == INFO_PATH:
                await _reply(send, 200, encode_info(self._service.info))
            case "GET", path if path == LIVE_PATH:
                await _reply(send, 503 if self._service.dead else 200, b"{}")
            case "GET", path if path == READY_PATH:
                reason = self._not_ready()
                await _reply(send, 503 if reason else 200, msgspec.json.encode({"reason": reason}))
            case "GET", path if path == METRICS_PATH:
                page = await asyncio.to_thread(self._metrics.render)
                await _reply(send, 200, page, ("content-type", CONTENT_TYPE))
            case _:
                await _reply(send, 404, b'{"reason": "no such path"}')

    async def close(self) -> None:
        """Send what is left of the traces."""
        if self._tracer:
            await self._tracer.close()

    def _known(self, scope: Scope) -> bool:
        """Whether the caller may have an answer; everybody may know that the process lives."""
        if self._expected is None or scope["path"] == LIVE_PATH:
            return True
        return hmac.compare_digest(dict(scope["headers"]).get(b"authorization", b""), self._expected)

    async def _encode(self, caller: str, receive: Receive, send: Send) -> None:
        # Another replica can do the batch; this process is about to end.
        if self._not_ready():
            self._metrics.refused(DRAINING)
            return await _unavailable(send, DRAINING)
        body = await _read(receive)
        if body is None:
            return await _reply(send, 413, b'{"reason": "the batch is too large"}')
        try:
            request = decode_request(body)
        except msgspec.DecodeError as error:
            return await _reply(send, 400, msgspec.json.encode({"reason": str(error)}))
        stay = self._admission.enter(caller, request.priority, len(request.items), alone=request.alone)
        if not isinstance(stay, Stay):
            self._metrics.refused(OVERLOADED)
            return await _unavailable(send, OVERLOADED, (WAIT_HEADER, f"{stay:.3f}"))
        try:
            await self._stream(request, receive, send)
        finally:
            self._admission.leave(stay)

    async def _stream(self, request: EncodeRequest, receive: Receive, send: Send) -> None:
        frames = encode_batch(self._service, request, self._metrics, self.canaries.doubt)
        this = asyncio.current_task()
        assert this is not None
        gone = asyncio.create_task(_cancel_when_gone(receive, this))
        started = False
        info = self._service.info
        try:
            headers = [
                (b"content-type", b"application/octet-stream"),
                (SPACE_HEADER.encode(), space_header(info.task, info.space).encode()),
            ]
            async for chunk, more in frames:
                if self.canaries.failure:
                    raise _WrongVectors
                if not started:
                    # Not before: so the head goes in one packet with the first frames, and a batch that
                    # is done at once has a length instead of chunks.
                    started = True
                    if not more:
                        headers.append((b"content-length", str(len(chunk)).encode()))
                    await send({"type": "http.response.start", "status": 200, "headers": headers})
                if not more:
                    # The server takes a finished reply for the caller's leaving, and the batch has still
                    # to be counted.
                    gone.cancel()
                await send({"type": "http.response.body", "body": chunk, "more_body": more})
            if not started:
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                await send({"type": "http.response.body", "body": b""})
        except asyncio.CancelledError:
            if not gone.done() or gone.cancelled():
                raise
            # The caller has left: nobody is there to answer, and the engine has been told.
            this.uncancel()
        except (EngineDied, _WrongVectors) as error:
            state, reason = _ENDS[type(error)]
            logger.error("a batch is cut: %s", reason)
            if not started:
                gone.cancel()
                await _reply(send, 500, msgspec.json.encode({"reason": reason}), (STATE_HEADER, state))
            # What has been started is not finished, so the server cuts the connection.
        finally:
            gone.cancel()
            await frames.aclose()

    def _not_ready(self) -> str | None:
        # Without asking the engine: it may have a long prompt, and a busy worker is ready.
        if self._service.dead:
            return "the engine has died"
        return self.canaries.failure or ("draining" if self.draining else None)


async def _cancel_when_gone(receive: Receive, task: asyncio.Task[Any]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    task.cancel()


async def _read(receive: Receive) -> bytes | None:
    """The body, or None as soon as it is known to be over the limit."""
    parts = []
    size = 0
    while True:
        message = await receive()
        part = message.get("body", b"")
        size += len(part)
        if size > MAX_BODY_BYTES:
            return None
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)


async def _unavailable(send: Send, state: str, *headers: tuple[str, str]) -> None:
    await _reply(send, 503, msgspec.json.encode({"reason": state}), (STATE_HEADER, state), *headers)


async def _reply(send: Send, status: int, body: bytes, *headers: tuple[str, str]) -> None:
    named = {"content-type": "application/json", "content-length": str(len(body)), **dict(headers)}
    raw = [(name.encode(), value.encode()) for name, value in named.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
