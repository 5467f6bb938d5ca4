"""OpenTelemetry traces: a request, its wait, its batches. Off unless an OTLP endpoint is configured.

Everything of OpenTelemetry is imported here, and only when it is on. Attributes have the names of its
semantic conventions where there is one, and begin with `triptych.` where there is none.
"""

import asyncio
import os
import threading
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from router.http import Request
from router.items import Batch, Gather, Item

if TYPE_CHECKING:
    from opentelemetry.trace import Span

# Any of these turns tracing on; the rest of OpenTelemetry's variables are read by its SDK.
ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
# What is still to be exported when the process ends gets so long.
FLUSH_SECONDS = 5.0


class Tracing:
    """Makes the spans of one router and sends them off in a thread of their own.

    A span that cannot be sent is dropped; nothing here waits for the collector or fails with it.
    """

    @classmethod
    def configured(cls) -> "Tracing | None":
        """Tracing as the environment has it; None when it is off."""
        on = any(os.environ.get(name) for name in ENDPOINTS)
        disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
        return cls() if on and not disabled else None

    def __init__(self) -> None:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        name = os.environ.get("OTEL_SERVICE_NAME", "triptych-router")
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": name}), shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("triptych.router")
        self._propagator = TraceContextTextMapPropagator()
        self._otel = trace

    async def close(self) -> None:
        """Send what is left, for a few seconds at most."""
        # Not in the loop's own threads: those are waited for to the end when the loop is closed.
        sending = threading.Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        await asyncio.to_thread(sending.join, FLUSH_SECONDS)

    def request(self, request: Request, route: str) -> "Span":
        """The span of a request, child of the caller's `traceparent`, until `answered`."""
        given = {name: request.header(name) for name in ("traceparent", "tracestate")}
        carrier = {name: value for name, value in given.items() if value is not None}
        return self._tracer.start_span(
            f"{request.method} {route}",
            self._propagator.extract(carrier),
            self._otel.SpanKind.SERVER,
            {
                "http.request.method": request.method,
                "http.route": route,
                "url.path": request.path,
                "url.scheme": "http",
                "triptych.request_id": request.id.decode(),
            },
        )

    def answered(self, span: "Span", status: int, reason: str) -> None:
        """The request's span ends; `reason` is the code of its error, if it was one."""
        span.set_attribute("http.response.status_code", status)
        if reason:
            span.set_attribute("error.type", reason)
        if status >= 500:
            span.set_status(self._otel.StatusCode.ERROR)
        span.end()

    def waited(self, batch: Batch, now: float) -> None:
        """The requests of `batch` have waited until `now`: one span for each of them."""
        ended = time.time_ns()
        for gather, count in _gathers(batch.items).items():
            if gather.span is not None:
                wait = self._tracer.start_span(
                    "queue",
                    self._otel.set_span_in_context(gather.span),
                    attributes={"triptych.pool": batch.items[0].pool, "triptych.items": count},
                    start_time=ended - int((now - gather.admitted_at) * 1e9),
                )
                wait.end(ended)

    def batch(self, address: str, batch: Batch) -> "Span | None":
        """The span of a batch at a replica, until `batch_ended`; the worker is told that it is its parent.

        Child of the first request that is traced, linked to the others.
        """
        spans = [gather.span for gather in _gathers(batch.items) if gather.span is not None]
        if not spans:
            return None
        host, _, port = address.rpartition(":")
        attributes: dict[str, Any] = {
            "server.address": host,
            "server.port": int(port),
            "triptych.pool": batch.items[0].pool,
            "triptych.items": len(batch.items),
            "triptych.tokens": batch.tokens,
        }
        context = self._otel.set_span_in_context(spans[0])
        links = [self._otel.Link(span.get_span_context()) for span in spans[1:]]
        span = self._tracer.start_span("batch", context, self._otel.SpanKind.CLIENT, attributes, links)
        self._propagator.inject(batch.headers, self._otel.set_span_in_context(span))
        return span

    def batch_ended(self, span: "Span", outcome: str, reason: str) -> None:
        """The batch has left its replica."""
        span.set_attribute("triptych.outcome", outcome)
        if outcome in ("failed", "rejected"):
            span.set_attribute("error.type", outcome)
            span.set_status(self._otel.StatusCode.ERROR, reason)
        span.end()

    def put_back(self, items: Sequence[Item], reason: str) -> None:
        """`items` wait again: an event of each request."""
        for gather, count in _gathers(items).items():
            if gather.span is not None:
                gather.span.add_event("retry", {"triptych.reason": reason, "triptych.items": count})


def _gathers(items: Iterable[Item]) -> dict[Gather, int]:
    """The requests that `items` are of, in their order, and how many are of each."""
    found: dict[Gather, int] = {}
    for item in items:
        found[item.gather] = found.get(item.gather, 0) + 1
    return found
