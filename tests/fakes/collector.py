"""An OpenTelemetry collector on a real socket, by OTLP over HTTP, that keeps what it is sent."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector:
    """`spans` are all so far; `broken` makes it answer 500."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()
        self.broken = False
        self.asked = 0
        self.url = ""

    def named(self, name: str) -> list[Span]:
        """The spans of that name, in the order in which they began."""
        return sorted(
            (span for span in self.spans if span.name == name), key=lambda span: span.start_time_unix_nano
        )

    async def until(self, name: str, count: int) -> list[Span]:
        """The spans of that name, once there are so many."""
        async with asyncio.timeout(20):
            while len(self.named(name)) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return self.named(name)

    async def _take(self, request: web.Request) -> web.Response:
        self.asked += 1
        data = await request.read()
        if self.broken:
            return web.Response(status=500)
        # aiohttp undoes what it is told of.
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
    """A collector that listens."""
    collector = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", collector._take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield collector
    finally:
        await runner.cleanup()


def attributes(span: Span) -> dict[str, object]:
    """The attributes of a span as plain values."""
    found: dict[str, object] = {}
    for each in span.attributes:
        kind = each.value.WhichOneof("value")
        found[each.key] = getattr(each.value, kind) if kind else None
    return found
