"""A fake OpenTelemetry collector for OTLP over HTTP, on a real socket."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.fakes.hang_guard import hang_guard
from tests.fakes.site import site


class Collector:
    """Collects `spans` and the `services` that sent them."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()
        self.url = ""

    def named(self, name: str) -> list[Span]:
        """The spans of that name, in order of their start."""
        return sorted(
            (span for span in self.spans if span.name == name), key=lambda span: span.start_time_unix_nano
        )

    async def until(self, name: str, count: int) -> list[Span]:
        """Wait for `count` spans of that name, and return them."""
        async with hang_guard():
            while len(self.named(name)) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return self.named(name)

    async def take(self, request: web.Request) -> web.Response:
        """Take the spans of one request."""
        data = await request.read()
        # aiohttp decompresses only if there is a content-encoding.
        sent = ExportTraceServiceRequest.FromString(
            gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        )
        for resource in sent.resource_spans:
            self.services |= {
                each.value.string_value for each in resource.resource.attributes if each.key == "service.name"
            }
            for scope in resource.scope_spans:
                self.spans += scope.spans
        return web.Response(body=b"", content_type="application/x-protobuf")


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """A running collector."""
    collector = Collector()
    async with site(collector.take) as server:
        collector.url = server.url
        yield collector


def attributes(span: Span) -> dict[str, object]:
    """The attributes of a span as plain values."""
    found: dict[str, object] = {}
    for each in span.attributes:
        kind = each.value.WhichOneof("value")
        found[each.key] = getattr(each.value, kind) if kind else None
    return found
