"""OpenTelemetry spans of requests, queue waits and batches. Off unless an OTLP endpoint is configured.

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
from router.items import Batch, Item, Job

if TYPE_CHECKING:
    from opentelemetry.trace import Span

# Each of these turns tracing on. OpenTelemetry's SDK reads its other variables.
ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
# Timeout of the last export when the process ends.
FLUSH_SECONDS = 5.0


class Tracing:
    """Makes the spans of one router and exports them in a thread.

    A span that cannot be sent is dropped; nothing here waits for the collector or fails with it.
    """

    @classmethod
    def configured(cls) -> "Tracing | None":
        """Tracing as the environment configures it, or None."""
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
        """Export the remaining spans, within `FLUSH_SECONDS`."""
        # A daemon thread, since closing the event loop waits for its own threads.
        sending = threading.Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        await asyncio.to_thread(sending.join, FLUSH_SECONDS)

    def request(self, request: Request, route: str) -> "Span":
        """Start the span of a request, child of the caller's `traceparent`. `answered` ends it."""
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
        """End the span of a request; `reason` is the code of its error, or empty."""
        span.set_attribute("http.response.status_code", status)
        if reason:
            span.set_attribute("error.type", reason)
        if status >= 500:
            span.set_status(self._otel.StatusCode.ERROR)
        span.end()

    def waited(self, batch: Batch, now: float) -> None:
        """Record the queue wait of each request in `batch`, which ends `now`."""
        ended = time.time_ns()
        for job, count in _jobs(batch.items).items():
            if job.span is not None:
                wait = self._tracer.start_span(
                    "queue",
                    self._otel.set_span_in_context(job.span),
                    attributes={"triptych.pool": batch.items[0].pool, "triptych.items": count},
                    start_time=ended - int((now - job.admitted_at) * 1e9),
                )
                wait.end(ended)

    def batch(self, address: str, batch: Batch) -> "Span | None":
        """Start the span of a batch at a replica, the parent of the worker's span. `batch_ended` ends it.

        Child of the first request that is traced, linked to the others.
        """
        spans = [job.span for job in _jobs(batch.items) if job.span is not None]
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
        """End the span of a batch."""
        span.set_attribute("triptych.outcome", outcome)
        if outcome in ("failed", "rejected"):
            span.set_attribute("error.type", outcome)
            span.set_status(self._otel.StatusCode.ERROR, reason)
        span.end()

    def put_back(self, items: Sequence[Item], reason: str) -> None:
        """Record a retry event for each request in `items`."""
        for job, count in _jobs(items).items():
            if job.span is not None:
                job.span.add_event("retry", {"triptych.reason": reason, "triptych.items": count})


def _jobs(items: Iterable[Item]) -> dict[Job, int]:
    """The requests of `items`, in order, and the number of items of each."""
    found: dict[Job, int] = {}
    for item in items:
        found[item.job] = found.get(item.job, 0) + 1
    return found
