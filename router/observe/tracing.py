"""OpenTelemetry spans of requests, queue waits and batches. Off unless an OTLP endpoint is configured.

Attributes have the names of OpenTelemetry's semantic conventions, or begin with `triptych.`.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from triptych.router.http import Request
from triptych.router.items import Batch, Item, Job
from triptych.workers.shared.otel import Otel

if TYPE_CHECKING:
    from opentelemetry.trace import Span


class Tracing:
    @classmethod
    def configured(cls, trust_traceparent: bool = False) -> "Tracing | None":
        """Tracing as the environment configures it, or None.

        Unless `trust_traceparent`, a caller's `traceparent` gives the trace id, but does not decide whether
        the request is sampled.
        """
        otel = Otel.configured("router")
        return cls(otel, trust_traceparent) if otel else None

    def __init__(self, otel: Otel, trust_traceparent: bool = False) -> None:
        self.close = otel.close
        self._tracer = otel.tracer
        if not trust_traceparent:
            from triptych.router.observe.sampling import sample_unforced

            sample_unforced(self._tracer)
        self._propagator = otel.propagator
        self._otel = otel.api
        self._parent = otel.parent

    def request(self, request: Request, route: str) -> "Span":
        """Start the span of a request, child of the caller's `traceparent`. `answered` ends it."""
        headers = {name: request.header(name) for name in ("traceparent", "tracestate")}
        return self._tracer.start_span(
            f"{request.method} {route}",
            self._parent(headers),
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

    def waited(self, pool: str, batch: Batch, now: float) -> None:
        """Record the queue wait of each request in `batch`, which ends `now`."""
        ended = time.time_ns()
        for job, span, count in _traced(batch.items):
            wait = self._tracer.start_span(
                "queue",
                self._otel.set_span_in_context(span),
                attributes={"triptych.pool": pool, "triptych.items": count},
                start_time=ended - int((now - job.admitted_at) * 1e9),
            )
            wait.end(ended)

    def batch(self, pool: str, address: str, batch: Batch) -> "Span | None":
        """Start the span of a batch at a replica, the parent of the worker's span. `batch_ended` ends it.

        Child of the first request that is traced, linked to the others.
        """
        spans = [span for _, span, _ in _traced(batch.items)]
        if not spans:
            return None
        host, _, port = address.rpartition(":")
        attributes: dict[str, Any] = {
            "server.address": host,
            "server.port": int(port),
            "triptych.pool": pool,
            "triptych.items": len(batch.items),
            "triptych.tokens": batch.tokens,
        }
        context = self._otel.set_span_in_context(spans[0])
        links = [self._otel.Link(span.get_span_context()) for span in spans[1:]]
        span = self._tracer.start_span("batch", context, self._otel.SpanKind.CLIENT, attributes, links)
        self._propagator.inject(batch.headers, self._otel.set_span_in_context(span))
        return span

    def batch_ended(self, span: "Span", outcome: str, reason: str) -> None:
        span.set_attribute("triptych.outcome", outcome)
        if outcome in ("failed", "rejected"):
            span.set_attribute("error.type", outcome)
            span.set_status(self._otel.StatusCode.ERROR, reason)
        span.end()

    def put_back(self, items: Sequence[Item], reason: str) -> None:
        """Record a retry event for each request in `items`."""
        for _, span, count in _traced(items):
            span.add_event("retry", {"triptych.reason": reason, "triptych.items": count})


def _traced(items: Iterable[Item]) -> Iterator[tuple[Job, "Span", int]]:
    """The requests of `items` that are traced, in order, with their spans and numbers of items."""
    for job, count in Counter(item.job for item in items).items():
        if job.span is not None:
            yield job, job.span, count
