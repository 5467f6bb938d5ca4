"""OpenTelemetry setup: a tracer that exports over OTLP/HTTP, if an endpoint is configured.

`opentelemetry` is imported only when tracing is on. Its SDK reads all other `OTEL_` variables itself.
"""

import asyncio
import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.context import Context

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
"""Either variable turns tracing on."""

FLUSH_SECONDS = 5.0
"""Longest time that `close` waits for the export."""


class Otel:
    """The tracer of one process. Spans are exported in a background thread and dropped if that fails.

    `api` is the module `opentelemetry.trace`, `propagator` reads and writes W3C `traceparent` headers.
    """

    @classmethod
    def configured(cls, process: str) -> "Otel | None":
        """Tracing for `process` (router or worker), or None if the environment does not turn it on."""
        disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
        return cls(process) if any(map(os.environ.get, ENDPOINTS)) and not disabled else None

    def __init__(self, process: str) -> None:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        name = os.environ.get("OTEL_SERVICE_NAME", f"triptych-{process}")
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": name}), shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self.tracer = self._provider.get_tracer(f"triptych.{process}")
        self.propagator = TraceContextTextMapPropagator()
        self.api = trace

    def parent(self, headers: Mapping[str, str | None]) -> "Context":
        """The caller's context, read from `traceparent` and `tracestate`."""
        names = ("traceparent", "tracestate")
        return self.propagator.extract({name: value for name in names if (value := headers.get(name))})

    async def close(self) -> None:
        """Export the remaining spans, for at most `FLUSH_SECONDS`."""
        # A daemon thread: closing the event loop waits for the loop's own threads without a limit.
        sending = threading.Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        await asyncio.to_thread(sending.join, FLUSH_SECONDS)
