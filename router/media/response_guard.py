"""Ends responses that are mostly framing, such as endless `100 Continue` or chunks of one byte.

aiohttp parses all that it has received at once. A server that sends only framing could hold the event loop
for seconds and fill the memory. This uses private interfaces of aiohttp, tested with 3.14.
"""

import asyncio
from functools import partial
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError

# Bytes of heads and chunk sizes: so many, and a share of the body.
FRAMING_BYTES = 32 << 10
FRAMING_SHARE = 1 / 16
# Bytes that are parsed before the next check.
STEP_BYTES = 4 << 10


def guard_responses(connector: aiohttp.TCPConnector, loop: asyncio.AbstractEventLoop) -> None:
    """Have all connections of `connector` check their responses."""
    connector._factory = partial(_Handler, loop=loop)  # type: ignore[assignment]


class _Handler(ResponseHandler):
    def set_response_params(self, **options: Any) -> None:
        # The previous response is complete.
        self._payload = None
        self._received = 0
        super().set_response_params(**options)

    def data_received(self, data: bytes) -> None:
        for at in range(0, len(data), STEP_BYTES):
            piece = data[at : at + STEP_BYTES]
            self._received += len(piece)
            super().data_received(piece)
            body = self._payload.total_bytes if self._payload is not None else 0
            if self._received - body > FRAMING_BYTES + body * FRAMING_SHARE:
                self.set_exception(HttpProcessingError(message="too little of the response is its body"))
                if self.transport is not None:
                    self.transport.abort()
                return
