"""OpenTelemetry span of a batch, child of the router's span."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from workers.contract import ENCODE_PATH
from workers.shared.otel import Otel


@contextmanager
def batch_span(otel: Otel | None, headers: Mapping[str, str], task: str) -> Iterator[None]:
    """The span of a batch that came with `headers`; no span if tracing is off."""
    if otel is None:
        yield
        return
    attributes = {"http.request.method": "POST", "http.route": ENCODE_PATH, "triptych.pool": task}
    kind = otel.api.SpanKind.SERVER
    with otel.tracer.start_as_current_span("encode", otel.parent(headers), kind, attributes):
        yield
