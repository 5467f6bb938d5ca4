"""The ASGI application: routes, and the headers and errors of all replies."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from triptych.router.access.guard import Guard
from triptych.router.api.cors import Cors
from triptych.router.api.embeddings import embeddings
from triptych.router.api.models import model, model_list
from triptych.router.api.openapi import openapi
from triptych.router.api.pages import DOCS_PATHS, PAGE_PATHS, static
from triptych.router.api.rerank import rerank
from triptych.router.api.work import seconds_of
from triptych.router.background import running
from triptych.router.errors import (
    AuthError,
    ClientGone,
    Internal,
    Invalid,
    MethodNotAllowed,
    NotFound,
    QueueFull,
    RouterError,
    Unavailable,
)
from triptych.router.http import (
    Header,
    Receive,
    Reply,
    Request,
    Scope,
    Send,
    error_body,
    id_of,
    json_reply,
    send_reply,
)
from triptych.router.media.loader import MediaLoader
from triptych.router.memory import Budget, default_budget
from triptych.router.observe.gauges import Gauges
from triptych.router.observe.metrics import CONTENT_TYPE
from triptych.router.pool.fleet import Fleet
from triptych.router.pool.served import Served
from triptych.router.pool.targets import document_of
from triptych.router.serving.connections import Connections
from triptych.router.settings import RouterSettings
from triptych.workers.shared import logs

log = logging.getLogger(__name__)

Handler = Callable[[Request], Awaitable[Reply]]
# Their requests wait in a queue.
WORK_PATHS = ("/v1/embeddings", "/v1/rerank")
MODEL_PATH = "/v1/models/"
CLOSE: Header = (b"connection", b"close")
# Unknown paths share one label, or clients could create any number of series.
NO_ROUTE = "other"
# For metrics and traces only: the client has left, so nothing is sent.
CLIENT_GONE_STATUS = 499


class App:
    """Serves one fleet for the lifetime of the server. The server sets `draining` before it stops."""

    def __init__(self, settings: RouterSettings, fleet: Fleet | None = None) -> None:
        self.fleet = fleet or Fleet(settings)
        self.draining = False
        self.cors = Cors(settings.cors_origins)
        self.guard = Guard(settings)
        self.media = MediaLoader(settings, self.fleet.metrics)
        self.budget = Budget(settings.memory_bytes or default_budget(settings.processes))
        self._metrics = self.fleet.metrics
        self.connections = Connections(settings, self._metrics)
        self._gauges = Gauges(self.fleet, self.budget, self.connections)
        self._tracing = self.fleet.tracing
        self._settings = settings
        # The OpenAPI document, and the models that it describes.
        self._document: dict[str, Any] = {}
        self._documented: list[Served] | None = None
        work: dict[str, Any] = {"fleet": self.fleet, "media": self.media, "settings": settings}
        self.routes: dict[str, Handler] = {
            "/v1/embeddings": partial(embeddings, **work),
            "/v1/rerank": partial(rerank, **work),
            "/v1/models": self._models,
            MODEL_PATH: self._model,
            "/health": self._health,
            "/live": self._live,
            "/ready": self._ready,
            "/metrics": self._read_metrics,
            "/targets": self._targets,
            "/openapi.json": self._openapi,
            **dict.fromkeys(DOCS_PATHS, self._static),
            **(dict.fromkeys(PAGE_PATHS, self._static) if settings.page else {}),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(Request(scope, receive, self.budget), send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        async with (
            self.fleet,
            self.media,
            running(self.guard.watch(), self._gauges.keep_set(), self.connections.watch()),
        ):
            await send({"type": "lifespan.startup.complete"})
            await receive()
        if self._tracing:
            await self._tracing.close()
        await send({"type": "lifespan.shutdown.complete"})

    def turn_away(
        self, method: bytes, path: bytes, headers: Sequence[Header]
    ) -> tuple[Reply, list[Header], bool] | None:
        """The reply to a request that no queue has room for, its headers, and whether to close; or None.

        Under overload this refuses most requests before their body is read, which saves time for the others.
        The key comes first, since keys have shares of the queues. Its limits do not: a refused request would
        only be given back what it took.
        """
        route = path.decode("latin-1")
        if route not in WORK_PATHS or method != b"POST":
            return None
        named = dict(headers)
        try:
            key = self.guard.key_of(named)
            deadline = self.fleet.clock() + seconds_of(named, self._settings)
            name = key.name if key else ""
            self.fleet.check_any_room(deadline, name)
        except QueueFull as full:
            self._metrics.answered(route, full.status, 0.0, name)
            self._metrics.rejections.labels(full.code).inc()
            id = id_of(named)
            common = [*_common_headers(id, 0.0, 0.0, 0.0), *self.cors.headers(named)]
            return error_reply(full, id), common, self.draining
        except (AuthError, Invalid):
            # The handler replies with what is wrong.
            pass
        return None

    async def _http(self, request: Request, send: Send) -> None:
        started = time.perf_counter()
        logs.requests.set((request.id.decode(),))
        route = self._route(request.path)
        if self._tracing:
            request.span = self._tracing.request(request, route)
        self._gauges.requests += 1
        status, reason = CLIENT_GONE_STATUS, "CLIENT_GONE"
        try:
            reply, reason = await self._reply(request, route)
            status = reply.status
            total = time.perf_counter() - started
            headers = _common_headers(request.id, total, request.queue_seconds, request.inference_seconds)
            headers += request.reply_headers
            headers += self.cors.headers(request.headers)
            if self.draining or request.cut_off:
                headers.append(CLOSE)
            if request.allowance is not None:
                now = time.monotonic()
                request.allowance.settle(now, refused=status == 429)
                headers += request.allowance.headers(now)
            await send_reply(send, request, reply, headers)
        except ClientGone:
            status, reason = CLIENT_GONE_STATUS, "CLIENT_GONE"
        finally:
            request.memory.release()
            self._gauges.requests -= 1
            self._metrics.answered(route, status, time.perf_counter() - started, request.key)
            if reason:
                self._metrics.rejections.labels(reason).inc()
            if self._tracing and request.span:
                self._tracing.answered(request.span, status, reason)

    async def _reply(self, request: Request, route: str) -> tuple[Reply, str]:
        """The reply, and its error code or "". Raises `ClientGone`."""
        error: RouterError
        if preflight := self.cors.preflight(request):
            return preflight, ""
        try:
            self.guard.admit(request)
            return await self._handler(request, route)(request), ""
        except ClientGone:
            raise
        except asyncio.CancelledError:
            # The server cancels the requests that are open when its shutdown timeout ends.
            error = Unavailable("the router is stopping")
        except RouterError as expected:
            # Its traceback would keep the request's body until the next garbage collection.
            error = expected.with_traceback(None)
        except Exception:
            log.exception("unexpected error in a request. This is a bug.")
            error = Internal("the router failed")
        return error_reply(error, request.id), error.code

    def _route(self, path: str) -> str:
        if path in self.routes:
            return path
        return MODEL_PATH if path.startswith(MODEL_PATH) else NO_ROUTE

    def _handler(self, request: Request, route: str) -> Handler:
        handler = self.routes.get(route)
        if handler is None:
            raise NotFound(f"no path {request.path[:100]}; see /docs")
        allowed = methods_of(route)
        if request.method not in allowed:
            raise MethodNotAllowed(f"{request.path[:100]} allows {', '.join(allowed)}", allowed)
        return handler

    async def _models(self, _: Request) -> Reply:
        return json_reply(200, model_list(self.fleet))

    async def _model(self, request: Request) -> Reply:
        name = request.path.removeprefix(MODEL_PATH)
        return json_reply(200, model(name, self.fleet, self._settings.aliases))

    async def _live(self, _: Request) -> Reply:
        return json_reply(200, {"status": "ok"})

    async def _health(self, _: Request) -> Reply:
        # Not the reason: this path needs no key.
        status, said = (503, "not ready") if self._not_ready() else (200, "ok")
        return json_reply(status, {"status": said})

    def _not_ready(self) -> str | None:
        """Why requests should go to another router; None if this one takes them."""
        return "draining" if self.draining else self.fleet.waiting_for

    async def _ready(self, _: Request) -> Reply:
        not_ready = self.fleet.not_ready()
        pools = {name: not_ready.get(name, "ready") for name in self.fleet.serving}
        reason = self._not_ready()
        ready = not not_ready and reason is None
        status = {"ready": ready, "reason": reason, "pools": pools, "vector_spaces": self.fleet.spaces}
        return json_reply(200 if ready else 503, status)

    async def _read_metrics(self, _: Request) -> Reply:
        return Reply(200, await self._gauges.page(), CONTENT_TYPE)

    async def _targets(self, _: Request) -> Reply:
        return json_reply(200, document_of(self.fleet.targets))

    async def _openapi(self, _: Request) -> Reply:
        served = self.fleet.served
        if self._documented != list(served.values()):
            # Takes milliseconds, so only when a model or its sizes change.
            self._documented, self._document = list(served.values()), openapi(self._settings, served)
        return json_reply(200, self._document)

    async def _static(self, request: Request) -> Reply:
        return await asyncio.to_thread(static, request.path)


def methods_of(route: str) -> tuple[str, ...]:
    return ("POST",) if route in WORK_PATHS else ("GET", "HEAD")


def error_reply(error: RouterError, request_id: bytes) -> Reply:
    content = {**error_body(error.status, error.code, error.detail, request_id), **error.fields}
    return json_reply(error.status, content, error.headers)


def _common_headers(id: bytes, total: float, queue: float, inference: float) -> list[Header]:
    overhead = total - queue - inference
    return [
        (b"x-request-id", id),
        (b"x-total-time", b"%.3f" % (total * 1e3)),
        (b"x-queue-time", b"%.3f" % (queue * 1e3)),
        (b"x-inference-time", b"%.3f" % (inference * 1e3)),
        (b"x-router-overhead", b"%.3f" % (overhead * 1e3)),
    ]
