"""Names that resolve as a test says, and the reason why an address cannot be fetched."""

import socket
from ipaddress import ip_network

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from triptych.router.errors import MediaUnreachable
from triptych.router.media.fetch import Fetcher

LOOPBACK = (ip_network("127.0.0.1/32"),)

LIMIT = 200_000


class Names(AbstractResolver):
    """Returns the next of `addresses` each time, and records the hosts that it was asked for."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if not self.addresses:
            raise OSError(None, "unknown")
        addresses = self.addresses[min(len(self.asked), len(self.addresses) - 1)]
        self.asked.append(host)
        return [
            ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)
            for address in addresses.split(",")
        ]

    async def close(self) -> None:
        pass


async def failure(fetcher: Fetcher, url: str) -> str:
    """The reason for which `url` cannot be fetched."""
    with pytest.raises(MediaUnreachable) as caught:
        await fetcher.fetch(url, LIMIT, "body -> input -> 1 -> image")
    assert caught.value.detail.startswith("body -> input -> 1 -> image: cannot be fetched: ")
    return caught.value.detail.partition("fetched: ")[2]
