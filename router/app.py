"""The ASGI application: routes, and the headers and errors that every reply has in common."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import Any

from router import docs
from router.embeddings import embeddings
from router.errors import (
    TABLE,
    ClientGone,
    Internal,
    Invalid,
    MethodNotAllowed,
    NotFound,
    RouterError,
    Unavailable,
)
from router.fleet import Fleet
from router.http import Header, Receive, Reply, Request, Scope, Send, json_reply, send_reply
from router.loader import MediaLoader
from router.models import model, model_list
from router.openapi import openapi
from router.pool import RETRY_AFTER
from router.rerank import rerank
from router.settings import RouterSettings

log = logging.getLogger(__name__)

Handler = Callable[[Request], Awaitable[Reply]]
MODEL_PATH = "/v1/models/"


class App:
    """Serves one fleet, which lives as long as the server does."""

    def __init__(self, settings: RouterSettings, fleet: Fleet | None = None) -> None:
        self.fleet = fleet or Fleet(settings)
        self.media = MediaLoader(settings)
        self._settings = settings
        self._routes: dict[str, dict[str, Handler]] = {
            "/v1/embeddings": {"POST": self._embeddings},
            "/v1/rerank": {"POST": self._rerank},
            "/v1/models": {"GET": self._models},
            MODEL_PATH: {"GET": self._model},
            "/health": {"GET": self._live},
            "/live": {"GET": self._live},
            "/ready": {"GET": self._ready},
            "/openapi.json": {"GET": self._openapi},
            "/docs": {"GET": self._docs},
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI scope."""
        if scope["type"] == "http":
            await self._http(Request(scope, receive), send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        async with self.fleet, self.media:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    @cached_property
    def _document(self) -> dict[str, Any]:
        return openapi(self._settings)

    async def _http(self, request: Request, send: Send) -> None:
        started = time.perf_counter()
        try:
            reply = await self._handler(request)(request)
        except ClientGone:
            return
        except asyncio.CancelledError:
            # Only the server does this, to what is still open when its time to stop has run out.
            reply = error_reply(Unavailable("the router is stopping", retry_after=RETRY_AFTER), request.id)
        except RouterError as error:
            reply = error_reply(error, request.id)
        except Exception:
            log.exception("request %s ended in an error that nobody foresaw. This is a bug.", request.id)
            reply = error_reply(Internal("the router failed"), request.id)
        await send_reply(send, reply, _common_headers(request, time.perf_counter() - started))

    def _handler(self, request: Request) -> Handler:
        path = MODEL_PATH if request.path.startswith(MODEL_PATH) else request.path
        methods = self._routes.get(path)
        if methods is None:
            raise NotFound(f"no path {request.path[:100]}; see /docs")
        handler = methods.get("GET" if request.method == "HEAD" else request.method)
        if handler is None:
            raise MethodNotAllowed(f"{request.path[:100]} takes {', '.join(methods)}", list(methods))
        return handler

    async def _embeddings(self, request: Request) -> Reply:
        return await embeddings(request, self.fleet, self.media, self._settings)

    async def _rerank(self, request: Request) -> Reply:
        return await rerank(request, self.fleet, self.media, self._settings)

    async def _models(self, _: Request) -> Reply:
        return json_reply(200, model_list(self.fleet))

    async def _model(self, request: Request) -> Reply:
        return json_reply(200, model(request.path.removeprefix(MODEL_PATH), self.fleet))

    async def _live(self, _: Request) -> Reply:
        return json_reply(200, {"status": "ok"})

    async def _ready(self, _: Request) -> Reply:
        not_ready = self.fleet.not_ready()
        pools = {name: not_ready.get(name, "ready") for name in self.fleet.pools}
        return json_reply(503 if not_ready else 200, {"ready": not not_ready, "pools": pools})

    async def _openapi(self, _: Request) -> Reply:
        return json_reply(200, self._document)

    async def _docs(self, request: Request) -> Reply:
        address = f"http://{request.header('host') or f'{self._settings.host}:{self._settings.port}'}"
        page = docs.page(self._document, address)
        return Reply(200, page.encode(), b"text/html; charset=utf-8")


def error_reply(error: RouterError, request_id: bytes) -> Reply:
    """The one shape that every error has."""
    status, code = TABLE[type(error)]
    content: dict[str, object] = {"detail": error.detail, "code": code, "request_id": request_id.decode()}
    headers: list[Header] = []
    if isinstance(error, Invalid):
        content["errors"] = error.errors
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", ", ".join(error.allow).encode()))
    if error.retry_after is not None:
        headers.append((b"retry-after", str(error.retry_after).encode()))
    return json_reply(status, content, tuple(headers))


def _common_headers(request: Request, total: float) -> list[Header]:
    queue, inference = request.queue_seconds, request.inference_seconds
    overhead = total - queue - inference
    return [
        (b"x-request-id", request.id),
        (b"x-total-time", b"%.3f" % (total * 1e3)),
        (b"x-queue-time", b"%.3f" % (queue * 1e3)),
        (b"x-inference-time", b"%.3f" % (inference * 1e3)),
        (b"x-router-overhead", b"%.3f" % (overhead * 1e3)),
    ]
