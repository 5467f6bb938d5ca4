"""OpenTelemetry spans of a worker's batches, children of the router's. Off unless an endpoint is configured.

Everything of OpenTelemetry is imported here, and only when it is on. The variables are the router's.
"""

import asyncio
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
# What is still to be exported when the process ends gets so long.
FLUSH_SECONDS = 5.0


def configured() -> "Tracer | None":
    """Tracing as the environment has it; None when it is off."""
    on = any(os.environ.get(name) for name in ENDPOINTS)
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    return Tracer() if on and not disabled else None


@contextmanager
def span(tracer: "Tracer | None", headers: Mapping[bytes, str], task: str) -> Iterator[None]:
    """The span of one batch that came with `headers`; nothing when `tracer` is None."""
    if tracer is None:
        yield
    else:
        with tracer.encode(headers, task):
            yield


class Tracer:
    """Makes spans and sends them off in a thread of its own; one that cannot be sent is dropped."""

    def __init__(self) -> None:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        name = os.environ.get("OTEL_SERVICE_NAME", "triptych-worker")
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": name}), shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("triptych.worker")
        self._extract = TraceContextTextMapPropagator().extract
        self._kind = trace.SpanKind.SERVER

    @contextmanager
    def encode(self, headers: Mapping[bytes, str], task: str) -> Iterator[None]:
        """The span of one batch."""
        carrier = {
            name: headers[name.encode()] for name in ("traceparent", "tracestate") if name.encode() in headers
        }
        attributes = {"http.request.method": "POST", "http.route": "/v1/encode", "triptych.pool": task}
        with self._tracer.start_as_current_span("encode", self._extract(carrier), self._kind, attributes):
            yield

    async def close(self) -> None:
        """Send what is left, for a few seconds at most."""
        # Not in the loop's own threads: those are waited for to the end when the loop is closed.
        sending = threading.Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        await asyncio.to_thread(sending.join, FLUSH_SECONDS)
