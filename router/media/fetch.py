"""Fetches media from URLs that clients send, safe against SSRF.

- A host is resolved once per connection. The addresses are checked, and the connection goes to a checked one.
  The socket factory checks again, so this holds whatever aiohttp does.
- Redirects are followed here, and each target is checked like the first URL.
- No cookies, proxies or credentials are sent, and nothing is decompressed.
- Errors for clients contain no addresses, and do not tell a private host from one that does not exist.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from weakref import WeakValueDictionary

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from router.errors import MediaUnreachable, TooLarge
from router.media.addresses import NOT_PUBLIC, IPNetwork, Refused, check_url, is_allowed, parse

log = logging.getLogger(__name__)

MAX_REDIRECTS = 3
CONNECT_SECONDS = 5.0
# Concurrent fetches of this process, and from one host: a slow host cannot block the others.
MAX_FETCHES = 64
MAX_FETCHES_PER_HOST = 16
# Threads for DNS, apart from the event loop's own, so that a slow name server blocks nothing else.
LOOKUP_THREADS = 16
CHUNK_BYTES = 64 << 10
HEADERS = {"User-Agent": "triptych", "Accept": "*/*", "Accept-Encoding": "identity"}

_CANNOT_CONNECT = "cannot connect to the server"
_REDIRECTS = (301, 302, 303, 307, 308)

# Resolves a host and a port, with the result of `socket.getaddrinfo`. Blocks.
Lookup = Callable[[str, int], Sequence[tuple[int, int, int, str, tuple[object, ...]]]]


def system_lookup(host: str, port: int) -> Sequence[tuple[int, int, int, str, tuple[object, ...]]]:
    """The system's resolver."""
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


class Fetcher:
    """Fetches from public hosts and from `networks`. Used as an async context.

    `seconds` is the timeout of one fetch with its redirects. It starts when the fetch has its slot.
    """

    def __init__(self, networks: Sequence[IPNetwork], seconds: float, lookup: Lookup = system_lookup) -> None:
        self._networks = tuple(networks)
        self._seconds = seconds
        self._lookup = lookup
        # The slots of each host. A semaphore exists as long as a fetch holds or awaits it.
        self.hosts: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def __aenter__(self) -> "Fetcher":
        self._slots = asyncio.Semaphore(MAX_FETCHES)
        connector = aiohttp.TCPConnector(
            resolver=PublicResolver(self._networks, self._lookup),
            use_dns_cache=False,
            # Slots are limited here, so that waiting for one does not count for the timeout.
            limit=0,
            socket_factory=self._socket,
        )
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

    async def fetch(self, url: str, max_bytes: int, field: str) -> bytes:
        """Fetch `url`. Raises `MediaUnreachable` or `TooLarge`, which name `field`."""
        try:
            checked = check_url(url, self._networks)
            host = (checked.raw_host or "").lower()
            slots = self.hosts.setdefault(host, asyncio.Semaphore(MAX_FETCHES_PER_HOST))
            async with slots, self._slots, asyncio.timeout(self._seconds):
                return await self._follow(checked, max_bytes, field)
        except aiohttp.ServerTimeoutError:
            reason = _CANNOT_CONNECT
        except TimeoutError:
            reason = f"it took more than {self._seconds:g} seconds"
        except (Refused, _Failed) as error:
            reason = str(error)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            log.info("fetching media failed: %r", error)
            reason = _reason(error)
        raise MediaUnreachable(f"{field}: cannot be fetched: {reason}") from None

    async def _follow(self, url: URL, max_bytes: int, field: str) -> bytes:
        for _ in range(MAX_REDIRECTS + 1):
            async with self._session.get(url, allow_redirects=False) as response:
                if response.status not in _REDIRECTS or "location" not in response.headers:
                    return await _read(response, max_bytes, field)
                target = response.headers["location"]
                # The body is not read, so the connection cannot be reused.
                response.close()
            try:
                joined = url.join(parse(target))
            except ValueError:
                raise Refused("the redirect target is not a valid URL") from None
            url = check_url(str(joined), self._networks)
        raise _Failed(f"it redirects more than {MAX_REDIRECTS} times")

    def _socket(self, info: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, sockaddr = info
        if not is_allowed(ip_address(str(sockaddr[0])), self._networks):
            raise _NotPublic
        return socket.socket(family, kind, protocol)


class PublicResolver(AbstractResolver):
    """Resolves hosts to their allowed addresses only."""

    def __init__(self, networks: Sequence[IPNetwork], lookup: Lookup) -> None:
        self._networks = networks
        self._lookup = lookup
        self._threads = ThreadPoolExecutor(LOOKUP_THREADS, thread_name_prefix="media-lookup")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._threads, self._lookup, host, port)
        except (OSError, UnicodeError):
            found = []
        allowed = [
            ResolveResult(
                hostname=host,
                host=str(sockaddr[0]),
                port=port,
                family=its_family,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for its_family, _, protocol, _, sockaddr in found
            if is_allowed(ip_address(str(sockaddr[0])), self._networks)
        ]
        if not allowed:
            raise _NotPublic
        return allowed

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class _NotPublic(OSError):
    """The host does not exist or has no allowed address; clients are not told which."""


class _Failed(Exception):
    """A fetch failed; the message is for the client."""


async def _read(response: aiohttp.ClientResponse, max_bytes: int, field: str) -> bytes:
    """The body; raises `TooLarge` after `max_bytes`."""
    too_large = TooLarge(f"{field}: the file at the URL has more than {max_bytes} bytes")
    if response.status != 200:
        raise _Failed(f"the server responded with status {response.status}")
    if response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise _Failed("the server sent a compressed body")
    if response.content_length is not None and response.content_length > max_bytes:
        raise too_large
    data = bytearray()
    async for chunk in response.content.iter_chunked(CHUNK_BYTES):
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
