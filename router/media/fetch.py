"""Fetches media from addresses that clients send: changes when what is asked of other servers does.

Nothing a client writes may make the router talk to a machine that is not public. Each host is looked up
once for a connection, what it resolves to is checked, and the connection goes to what was checked; a guard
on the making of sockets holds that whatever the libraries beneath do. Redirects are followed here, each
checked like the first. No cookies, no proxies, no credentials, nothing is decompressed. What a client
reads of a failure names neither addresses nor what a private host answers.
"""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from ipaddress import ip_address

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from router.errors import MediaUnreachable, TooLarge
from router.media.addresses import IPNetwork, Refused, check_url, is_allowed, parse

log = logging.getLogger(__name__)

MAX_REDIRECTS = 3
CONNECT_SECONDS = 5.0
# Fetches under way in this process and from one host: a slow host cannot take all places.
MAX_FETCHES = 64
MAX_FETCHES_PER_HOST = 16
# Names looked up at a time, in threads of their own: a slow name server holds up nothing else.
LOOKUP_THREADS = 16
CHUNK_BYTES = 64 << 10
HEADERS = {"User-Agent": "triptych", "Accept": "*/*", "Accept-Encoding": "identity"}

_REDIRECTS = (301, 302, 303, 307, 308)

# As `socket.getaddrinfo` for TCP: a host and a port to what it resolves to.
Lookup = Callable[[str, int], Sequence[tuple[int, int, int, str, tuple[object, ...]]]]


def system_lookup(host: str, port: int) -> Sequence[tuple[int, int, int, str, tuple[object, ...]]]:
    """What the system's resolver says; blocks."""
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


class Fetcher:
    """Fetches from public hosts and from `networks`. Used as an async context.

    `seconds` is the time one fetch may take, redirects included, from when its turn has come.
    """

    def __init__(self, networks: Sequence[IPNetwork], seconds: float, lookup: Lookup = system_lookup) -> None:
        self._networks = tuple(networks)
        self._seconds = seconds
        self._lookup = lookup
        self._hosts: dict[str, _Places] = {}

    async def __aenter__(self) -> "Fetcher":
        self._places = asyncio.Semaphore(MAX_FETCHES)
        self._resolver = _PublicResolver(self._networks, self._lookup)
        connector = aiohttp.TCPConnector(
            resolver=self._resolver,
            use_dns_cache=False,
            # Places are counted here, before the clock of a fetch starts.
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
        """The bytes at `url`. Raises `MediaUnreachable` or `TooLarge`, which name `field`."""
        try:
            checked = check_url(url, self._networks)
            async with self._place((checked.raw_host or "").lower()):
                async with asyncio.timeout(self._seconds):
                    return await self._follow(checked, max_bytes)
        except aiohttp.ServerTimeoutError:
            reason = "its server cannot be connected to"
        except TimeoutError:
            reason = f"it took more than {self._seconds:g} seconds"
        except (Refused, _Failed) as error:
            reason = str(error)
        except _TooLong:
            raise TooLarge(f"{field}: what is at the address has more than {max_bytes} bytes") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            log.info("fetching media failed: %r", error)
            reason = _reason(error)
        raise MediaUnreachable(f"{field}: cannot be fetched: {reason}") from None

    async def _follow(self, url: URL, max_bytes: int) -> bytes:
        for _ in range(MAX_REDIRECTS + 1):
            async with self._session.get(url, allow_redirects=False) as response:
                if response.status not in _REDIRECTS or "location" not in response.headers:
                    return await _read(response, max_bytes)
                target = response.headers["location"]
                # What a redirect carries is not read, so its connection cannot be used again.
                response.close()
            try:
                joined = url.join(parse(target))
            except ValueError:
                raise Refused("it redirects to what is no address") from None
            url = check_url(str(joined), self._networks)
        raise _Failed(f"it redirects more than {MAX_REDIRECTS} times")

    @asynccontextmanager
    async def _place(self, host: str) -> AsyncIterator[None]:
        """A place among the fetches from `host` first, then among all, in the order of asking."""
        places = self._hosts.setdefault(host, _Places())
        places.users += 1
        try:
            async with places.semaphore, self._places:
                yield
        finally:
            places.users -= 1
            if places.users == 0:
                del self._hosts[host]

    def _socket(self, info: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, sockaddr = info
        if not is_allowed(ip_address(str(sockaddr[0])), self._networks):
            raise _NoPublicAddress
        return socket.socket(family, kind, protocol)


class _Places:
    """The places of one host, and how many fetches have or wait for one."""

    __slots__ = ("semaphore", "users")

    def __init__(self) -> None:
        self.semaphore = asyncio.Semaphore(MAX_FETCHES_PER_HOST)
        self.users = 0


class _PublicResolver(AbstractResolver):
    """Looks a host up and leaves out every address that nothing may be fetched from."""

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
            raise _NoPublicAddress
        return allowed

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class _NoPublicAddress(OSError):
    """A host that does not exist, or only where nothing may be fetched; a client is told no difference."""


class _Failed(Exception):
    """A fetch that came to nothing; the message is for the client."""


class _TooLong(Exception):
    """More bytes than are taken."""


async def _read(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """The body, read no further than `max_bytes`."""
    if response.status != 200:
        raise _Failed(f"the server answers {response.status}")
    if response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise _Failed("the server sends it compressed, which was not asked for")
    if response.content_length is not None and response.content_length > max_bytes:
        raise _TooLong
    data = bytearray()
    async for chunk in response.content.iter_chunked(CHUNK_BYTES):
        data += chunk
        if len(data) > max_bytes:
            raise _TooLong
    return bytes(data)


def _reason(error: Exception) -> str:
    """What a client may know of what went wrong on the way."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        return "the server's certificate does not stand the check"
    if isinstance(error, aiohttp.ClientConnectorError):
        if isinstance(error.os_error, _NoPublicAddress):
            return "its host has no public address"
        return "its server cannot be connected to"
    return "the server broke off, or does not speak HTTP"
