"""Fetches media from URLs that clients send, safe against SSRF.

- A host is resolved once per connection. The addresses are checked, and the connection goes to a checked one.
  The socket factory checks again, so this holds whatever aiohttp does.
- Redirects are followed here, and each target is checked like the first URL.
- No cookies, proxies or credentials are sent, and nothing is decompressed.
- Errors for clients contain no addresses, and do not tell a private host from one that does not exist.
- Clients share the slots fairly. No client, host or name server can block the others.
"""

import asyncio
import logging
import socket
from collections.abc import Sequence
from ipaddress import ip_address
from weakref import WeakValueDictionary

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from triptych.router.errors import MediaUnreachable, TooLarge, Unavailable
from triptych.router.media.addresses import NOT_PUBLIC, IPNetwork, Refused, check_url, is_allowed, parse
from triptych.router.media.response_guard import guard_responses
from triptych.router.memory import Reservation
from triptych.router.pool.transport import is_out_of_descriptors
from triptych.router.slots import FairSlots

log = logging.getLogger(__name__)

MAX_REDIRECTS = 3
CONNECT_SECONDS = 5.0
# Concurrent fetches of this process, of one client, and of one client from one host: a slow host cannot block
# the others.
MAX_FETCHES = 96
MAX_FETCHES_PER_CLIENT = 64
MAX_FETCHES_PER_HOST = 16
# For one name server, and how often each is asked.
LOOKUP_SECONDS = 2.0
LOOKUP_TRIES = 2
# Addresses of a host that are tried. For each that fails, aiohttp tries all others again.
MAX_ADDRESSES = 8
CHUNK_BYTES = 64 << 10
HEADERS = {"User-Agent": "triptych", "Accept": "*/*", "Accept-Encoding": "identity"}

_CANNOT_CONNECT = "cannot connect to the server"
_REDIRECTS = (301, 302, 303, 307, 308)


class Fetcher:
    """Fetches from public hosts and from `networks`. Used as an async context.

    `seconds` is the timeout of one fetch with its redirects. It starts when the fetch has its slot.
    """

    def __init__(
        self, networks: Sequence[IPNetwork], seconds: float, resolver: AbstractResolver | None = None
    ) -> None:
        self._networks = tuple(networks)
        self._seconds = seconds
        self._resolver = resolver
        self._slots = FairSlots(MAX_FETCHES, MAX_FETCHES_PER_CLIENT)
        # The slots of each client and host. A semaphore exists as long as a fetch holds or awaits it.
        self.hosts: WeakValueDictionary[tuple[str, str], asyncio.Semaphore] = WeakValueDictionary()

    async def __aenter__(self) -> "Fetcher":
        resolver = self._resolver or aiohttp.AsyncResolver(timeout=LOOKUP_SECONDS, tries=LOOKUP_TRIES)
        connector = aiohttp.TCPConnector(
            resolver=PublicResolver(self._networks, resolver),
            use_dns_cache=False,
            # Slots are limited here, so that waiting for one does not count for the timeout.
            limit=0,
            socket_factory=self._socket,
        )
        guard_responses(connector, asyncio.get_running_loop())
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            headers=HEADERS,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def fetch(
        self, url: str, max_bytes: int, field: str, client: str = "", memory: Reservation | None = None
    ) -> bytes:
        """Fetch `url` for `client`; `memory` grows as its bytes arrive.

        Raises `MediaUnreachable` or `TooLarge`, which name `field`; `Unavailable` without a free descriptor;
        and what `Reservation.grow` raises.
        """
        try:
            checked = check_url(url, self._networks)
            host = (checked.raw_host or "").lower()
            of_host = self.hosts.setdefault((client, host), asyncio.Semaphore(MAX_FETCHES_PER_HOST))
            async with of_host, self._slots.slot(client), asyncio.timeout(self._seconds):
                return await self._follow(checked, max_bytes, field, memory)
        except aiohttp.ServerTimeoutError:
            reason = _CANNOT_CONNECT
        except TimeoutError:
            reason = f"it took more than {self._seconds:g} seconds"
        except Refused as error:
            reason = str(error)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if is_out_of_descriptors(error):
                raise Unavailable("no file descriptor is free to fetch it") from None
            log.info("fetching media failed: %r", error)
            reason = _reason(error)
        raise MediaUnreachable(f"{field}: cannot be fetched: {reason}") from None

    async def _follow(self, url: URL, max_bytes: int, field: str, memory: Reservation | None) -> bytes:
        for _ in range(MAX_REDIRECTS + 1):
            async with self._session.get(url, allow_redirects=False) as response:
                if response.status not in _REDIRECTS or "location" not in response.headers:
                    return await _read(response, max_bytes, field, memory)
                target = response.headers["location"]
                # The body is not read, so the connection cannot be reused.
                response.close()
            try:
                joined = url.join(parse(target))
            except ValueError:
                raise Refused("the redirect target is not a valid URL") from None
            url = check_url(str(joined), self._networks)
        raise Refused(f"it redirects more than {MAX_REDIRECTS} times")

    def _socket(self, info: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, sockaddr = info
        if not is_allowed(ip_address(str(sockaddr[0])), self._networks):
            raise _NotPublic
        return socket.socket(family, kind, protocol)


class PublicResolver(AbstractResolver):
    """Passes on the first allowed addresses of another resolver."""

    def __init__(self, networks: Sequence[IPNetwork], resolver: AbstractResolver) -> None:
        self._networks = networks
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        try:
            found = await self._resolver.resolve(host, port, family)
        except (OSError, UnicodeError):
            found = []
        allowed = [result for result in found if is_allowed(ip_address(result["host"]), self._networks)]
        if not allowed:
            raise _NotPublic
        return allowed[:MAX_ADDRESSES]

    async def close(self) -> None:
        await self._resolver.close()


class _NotPublic(OSError):
    """The host does not exist or has no allowed address; clients are not told which."""


async def _read(
    response: aiohttp.ClientResponse, max_bytes: int, field: str, memory: Reservation | None
) -> bytes:
    """The body; raises `TooLarge` after `max_bytes`."""
    too_large = TooLarge(f"{field}: the file at the URL has more than {max_bytes} bytes")
    if response.status != 200:
        raise Refused(f"the server responded with status {response.status}")
    if response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise Refused("the server sent a compressed body")
    if response.content_length is not None and response.content_length > max_bytes:
        raise too_large
    data = bytearray()
    async for chunk in response.content.iter_chunked(CHUNK_BYTES):
        if memory is not None:
            memory.grow(len(chunk))
        data += chunk
        if len(data) > max_bytes:
            raise too_large
    return bytes(data)


def _reason(error: Exception) -> str:
    """What a client may know about a network error."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        return "TLS certificate verification failed"
    if isinstance(error, aiohttp.ClientConnectorError):
        return NOT_PUBLIC if isinstance(error.os_error, _NotPublic) else _CANNOT_CONNECT
    return "the server closed the connection or did not speak HTTP"
