"""The worker's ASGI app: the endpoints of `triptych.workers.shared.contract`."""

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any

import msgspec
from pydantic import SecretStr

from triptych.workers.admission import Admission, Stay
from triptych.workers.canary import Canaries
from triptych.workers.encoding import BatchFailed, Service, encode_batch
from triptych.workers.shared import contract, logs
from triptych.workers.shared.contract import EncodeRequest, decode_request, encode_info, space_header
from triptych.workers.shared.otel import Otel
from triptych.workers.worker_metrics import CONTENT_TYPE, WorkerMetrics

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# For the encoded media of a whole batch. The router's own limits are far below.
MAX_BODY_BYTES = 256 * 2**20


class WorkerApp:
    """Serves one service. With `token`, callers need it for everything but liveness.

    While `draining` is set, new batches are refused and accepted ones finish. Once `canaries` report wrong
    vectors, new batches are refused and accepted ones fail.
    """

    def __init__(self, service: Service, max_waiting_items: int, token: SecretStr | None = None) -> None:
        self._service = service
        self._admission = Admission(max_waiting_items)
        self._expected = f"Bearer {token.get_secret_value()}".encode() if token else None
        self.metrics = WorkerMetrics(lambda: self._admission.items, lambda: service.engine.steps)
        self._otel = Otel.configured("worker")
        self.canaries = Canaries(service, self.metrics)
        self.draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if not self._authorized(scope["path"], headers):
            body = _reason("send this worker's WORKER_TOKEN")
            return await _reply(send, 401, body, ("www-authenticate", "Bearer"))
        match scope["method"], scope["path"]:
            case "POST", contract.ENCODE_PATH:
                if ids := headers.get(contract.REQUESTS_HEADER):
                    logs.requests.set(tuple(ids.split(",")))
                with _batch_span(self._otel, headers, self._service.info.task):
                    await self._encode(headers.get(contract.ROUTER_HEADER, ""), receive, send)
            case "GET", contract.INFO_PATH:
                await _reply(send, 200, encode_info(self._service.info))
            case "GET", contract.LIVE_PATH:
                await _reply(send, 503 if self._service.engine.dead else 200, b"{}")
            case "GET", contract.READY_PATH:
                reason = self._not_ready()
                await _reply(send, 503 if reason else 200, _reason(reason))
            case "GET", contract.METRICS_PATH:
                page = await asyncio.to_thread(self.metrics.render)
                await _reply(send, 200, page, ("content-type", CONTENT_TYPE))
            case _:
                await _reply(send, 404, _reason("no such path"))

    async def close(self) -> None:
        if self._otel:
            await self._otel.close()

    def _authorized(self, path: str, headers: dict[str, str]) -> bool:
        given = headers.get("authorization", "").encode("latin-1")
        return not self._expected or path == contract.LIVE_PATH or hmac.compare_digest(given, self._expected)

    def _not_ready(self) -> str | None:
        # Does not ask the engine: a worker that is busy with a long prompt is ready.
        if self._service.engine.dead:
            return "the engine has died"
        return self.canaries.failure or ("draining" if self.draining else None)

    async def _encode(self, caller: str, receive: Receive, send: Send) -> None:
        if self._not_ready():
            # DRAINING in every case: the router sends the batch to another replica.
            return await self._refuse(send, contract.DRAINING)
        body = await _read(receive)
        if body is None:
            return await _reply(send, 413, _reason("the batch is too large"))
        try:
            request = decode_request(body)
        except msgspec.DecodeError as error:
            return await _reply(send, 400, _reason(str(error)))
        stay = self._admission.enter(caller, request.priority, len(request.items), alone=request.alone)
        if not isinstance(stay, Stay):
            return await self._refuse(send, contract.OVERLOADED, (contract.WAIT_HEADER, f"{stay:.3f}"))
        try:
            await self._stream(request, receive, send)
        finally:
            self._admission.leave(stay)

    async def _refuse(self, send: Send, state: str, *headers: tuple[str, str]) -> None:
        self.metrics.refused.labels(state).inc()
        await _reply(send, 503, _reason(state), (contract.STATE_HEADER, state), *headers)

    async def _stream(self, request: EncodeRequest, receive: Receive, send: Send) -> None:
        frames = encode_batch(self._service, request, self.metrics, self.canaries.doubt)
        this = asyncio.current_task()
        assert this is not None
        disconnect = asyncio.create_task(_cancel_on_disconnect(receive, this))
        started = False
        info = self._service.info
        space = space_header(info.task, info.space).encode()
        headers = [(b"content-type", b"application/octet-stream"), (contract.SPACE_HEADER.encode(), space)]
        try:
            async for chunk, more in frames:
                if self.canaries.failure:
                    raise BatchFailed(contract.WRONG, "the engine gives wrong vectors")
                if not started:
                    # Only now, so that the head and the first frames share a packet, and a batch that is done
                    # at once has a content-length.
                    started = True
                    if not more:
                        headers.append((b"content-length", str(len(chunk)).encode()))
                    await send({"type": "http.response.start", "status": 200, "headers": headers})
                if not more:
                    # After the last chunk uvicorn reports a disconnect, but the batch has still to be
                    # counted.
                    disconnect.cancel()
                await send({"type": "http.response.body", "body": chunk, "more_body": more})
            if not started:
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                await send({"type": "http.response.body", "body": b""})
        except asyncio.CancelledError:
            if not disconnect.done() or disconnect.cancelled():
                raise
            # The caller has left, and `frames.aclose` aborts what is in the engine.
            this.uncancel()
        except BatchFailed as error:
            logger.error("a batch failed: %s", error)
            if not started:
                disconnect.cancel()
                await _reply(send, 500, _reason(str(error)), (contract.STATE_HEADER, error.state))
            # Otherwise the reply is left unfinished, and the server closes the connection.
        finally:
            disconnect.cancel()
            await frames.aclose()


@contextmanager
def _batch_span(otel: Otel | None, headers: Mapping[str, str], task: str) -> Iterator[None]:
    """The span of a batch, child of the span in `headers`; without tracing, no span."""
    if otel is None:
        yield
        return
    attributes = {"http.request.method": "POST", "http.route": contract.ENCODE_PATH, "triptych.pool": task}
    kind = otel.api.SpanKind.SERVER
    with otel.tracer.start_as_current_span("encode", otel.parent(headers), kind, attributes):
        yield


async def _cancel_on_disconnect(receive: Receive, task: asyncio.Task[Any]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    task.cancel()


async def _read(receive: Receive) -> bytes | None:
    """The request body, or None as soon as it exceeds the limit."""
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
            # A single part is not copied.
            return b"".join(parts)


def _reason(reason: str | None) -> bytes:
    return msgspec.json.encode({"reason": reason})


async def _reply(send: Send, status: int, body: bytes, *headers: tuple[str, str]) -> None:
    named = {"content-type": "application/json", "content-length": str(len(body)), **dict(headers)}
    raw = [(name.encode(), value.encode()) for name, value in named.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
