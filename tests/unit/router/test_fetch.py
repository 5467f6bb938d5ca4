"""Fetching over real sockets: limits, redirects, SSRF, and fairness between hosts."""

import asyncio
import contextlib
import gzip
import shutil
import socket
import ssl
import subprocess
from ipaddress import ip_network
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from tests.fakes.hang_guard import hang_guard
from tests.fakes.router import eventually
from tests.fakes.site import hangs, says, site
from triptych.router.errors import MediaUnreachable, TooLarge
from triptych.router.media import fetch
from triptych.router.media.addresses import NOT_PUBLIC
from triptych.router.media.fetch import (
    MAX_FETCHES_PER_CLIENT,
    MAX_FETCHES_PER_HOST,
    MAX_REDIRECTS,
    Fetcher,
    PublicResolver,
)
from triptych.router.memory import Budget, Reservation

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


async def test_url_is_fetched_as_written() -> None:
    body = bytes(range(256)) * 500
    async with site(says(body)) as server, Fetcher(LOOPBACK, 10) as fetcher:
        assert await fetcher.fetch(f"{server.url}/a%2Fb.png?b=%2F&c=+%20{{}}", LIMIT, "f") == body
        assert server.requests[0].raw_path == "/a%2Fb.png?b=%2F&c=+%20{}"


async def test_request_has_no_cookie_or_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async def sets_a_cookie(request: web.Request) -> web.Response:
        response = web.Response(body=b"a")
        response.set_cookie("who", "you")
        return response

    # A name, since aiohttp stores no cookies for IP addresses.
    names = Names("127.0.0.1")
    async with site(sets_a_cookie) as server, site(hangs) as proxy, Fetcher(LOOPBACK, 5, names) as fetcher:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        for _ in range(2):
            url = server.url.replace("127.0.0.1", "a.example")
            assert await fetcher.fetch(url, LIMIT, "f") == b"a"
        assert not proxy.requests
        for request in server.requests:
            assert request.method == "GET"
            assert set(request.headers) <= {"Host", "User-Agent", "Accept", "Accept-Encoding", "Connection"}
            assert request.headers["Accept-Encoding"] == "identity"


async def test_this_machine_is_refused() -> None:
    async with site(says()) as server, Fetcher((), 5) as fetcher:
        port = server.url.rpartition(":")[2]
        for host in ("127.0.0.1", "localhost", "127.1", "2130706433", "[::ffff:127.0.0.1]", "0.0.0.0"):
            assert "127.0.0.1" not in await failure(fetcher, f"http://{host}:{port}/")
        assert not server.requests


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254"])
async def test_name_of_private_address_is_refused(address: str) -> None:
    names = Names(address)
    async with Fetcher((), 5, names) as fetcher:
        assert await failure(fetcher, "http://intranet.example:1/") == NOT_PUBLIC
        assert names.asked == ["intranet.example"]


async def test_private_names_are_not_leaked() -> None:
    async with Fetcher((), 5, Names("10.0.0.1")) as inside, Fetcher((), 5, Names()) as nowhere:
        assert await failure(inside, "http://a.example/") == await failure(nowhere, "http://a.example/")


async def test_only_allowed_addresses_are_used() -> None:
    names = Names("10.0.0.1,127.0.0.1,169.254.169.254")
    resolver = PublicResolver(LOOPBACK, names)
    assert [entry["host"] for entry in await resolver.resolve("a.example", 80)] == ["127.0.0.1"]
    async with site(says()) as server, Fetcher(LOOPBACK, 5, names) as fetcher:
        url = server.url.replace("127.0.0.1", "a.example")
        assert await fetcher.fetch(url, LIMIT, "f") == b"media"


async def test_dns_rebinding_is_refused() -> None:
    """A second lookup for the same connection would lead to the secret."""
    async with site(says(b"secret"), "127.0.0.2") as secret, site(says(b"public"), "127.0.0.1") as public:
        names = Names("127.0.0.1", "127.0.0.2")
        async with Fetcher(LOOPBACK, 5, names) as fetcher:
            url = public.url.replace("127.0.0.1", "a.example")
            assert await fetcher.fetch(url, LIMIT, "f") == b"public"
            assert names.asked == ["a.example"]
            # A new connection resolves the name again.
            assert await failure(fetcher, secret.url.replace("127.0.0.2", "a.example")) == NOT_PUBLIC
            assert len(names.asked) == 2
        assert not secret.requests


async def test_socket_factory_checks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "check_url", lambda text, _: fetch.parse(text))
    async with site(says()) as server, Fetcher((), 5) as fetcher:
        assert await failure(fetcher, server.url) == NOT_PUBLIC
        assert not server.requests


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_is_followed(status: int) -> None:
    async def handler(request: web.Request) -> web.Response:
        if request.path == "/old/a":
            return web.Response(status=status, headers={"Location": "../new?b=c"}, body=b"moved")
        return web.Response(body=request.raw_path.encode())

    async with site(handler) as server, Fetcher(LOOPBACK, 5) as fetcher:
        assert await fetcher.fetch(f"{server.url}/old/a", LIMIT, "f") == b"/new?b=c"


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.2:{port}/",
        "http://169.254.169.254/latest/meta-data",
        "//127.0.0.2:{port}/",
        "http://0x7f.2:{port}/",
        "http://[::1]:{port}/",
        "http://secret.example:{port}/",
        "file:///etc/passwd",
        "ftp://127.0.0.1/a",
        # These lead back to the same server.
        "http://me:secret@{own}/",
        "http://0x7f.1:{own_port}/",
        "http://2130706433:{own_port}/",
        "http://[",
    ],
)
async def test_redirect_target_is_checked(location: str) -> None:
    async with site(says(b"secret"), "127.0.0.2") as secret:
        port = secret.url.rpartition(":")[2]

        async def redirects(request: web.Request) -> web.Response:
            own_port = request.host.rpartition(":")[2]
            target = location.format(port=port, own=request.host, own_port=own_port)
            return web.Response(status=302, headers={"Location": target})

        async with site(redirects) as server, Fetcher(LOOPBACK, 5, Names("127.0.0.2")) as fetcher:
            assert "127.0.0.2" not in await failure(fetcher, server.url)
            assert len(server.requests) == 1
        assert not secret.requests


async def test_redirects_are_limited() -> None:
    async def handler(request: web.Request) -> web.Response:
        left = int(request.path.strip("/"))
        return web.Response(status=302, headers={"Location": f"/{left - 1}"}) if left else web.Response()

    async with site(handler) as server, Fetcher(LOOPBACK, 5) as fetcher:
        assert await fetcher.fetch(f"{server.url}/{MAX_REDIRECTS}", LIMIT, "f") == b""
        server.requests.clear()
        assert "redirects" in await failure(fetcher, f"{server.url}/{MAX_REDIRECTS + 1}")
        assert len(server.requests) == MAX_REDIRECTS + 1


@pytest.mark.parametrize("status", [204, 206, 304, 400, 401, 403, 404, 500, 503])
async def test_only_status_200_is_accepted(status: int) -> None:
    async with site(says(b"", status)) as server, Fetcher(LOOPBACK, 5) as fetcher:
        assert str(status) in await failure(fetcher, server.url)


@pytest.mark.parametrize("declared", [True, False])
async def test_size_limit_is_exact(declared: bool) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        size = int(request.path.strip("/"))
        response = web.StreamResponse()
        if declared:
            response.content_length = size
        await response.prepare(request)
        for at in range(0, size, 50_000):
            await response.write(bytes(min(50_000, size - at)))
        return response

    async with site(handler) as server, Fetcher(LOOPBACK, 10) as fetcher:
        assert len(await fetcher.fetch(f"{server.url}/{LIMIT}", LIMIT, "f")) == LIMIT
        with pytest.raises(TooLarge, match=f"^here: .*{LIMIT}"):
            await fetcher.fetch(f"{server.url}/{LIMIT + 1}", LIMIT, "here")


async def test_bytes_are_counted_as_they_arrive() -> None:
    memory = Reservation(Budget(LIMIT))

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(bytes(1000))
        return await hangs(request)

    async with site(handler) as server, Fetcher(LOOPBACK, 10) as fetcher:
        task = asyncio.create_task(fetcher.fetch(server.url, LIMIT, "f", memory=memory))
        await eventually(lambda: memory.held == 1000)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("declared", [True, False])
async def test_endless_body_is_not_read(declared: bool) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if declared:
            response.content_length = LIMIT + 1
        await response.prepare(request)
        while not declared:
            await response.write(bytes(65_536))
        return await hangs(request)

    async with site(handler) as server, Fetcher(LOOPBACK, 10) as fetcher:
        with pytest.raises(TooLarge):
            await fetcher.fetch(server.url, LIMIT, "f")
        if declared:
            async with hang_guard():
                await server.left.wait()


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "GZIP", "gzip, gzip"])
async def test_compressed_body_is_refused(encoding: str) -> None:
    bomb = gzip.compress(bytes(20 << 20))
    assert len(bomb) < LIMIT
    async with site(says(bomb, Content_Encoding=encoding)) as server, Fetcher(LOOPBACK, 5) as fetcher:
        assert "compressed" in await failure(fetcher, server.url)


@pytest.mark.parametrize("sends", ["nothing", "one byte", "a trickle"])
async def test_slow_server_times_out(sends: str) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if sends != "nothing":
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(b"a")
        while sends == "a trickle":
            await asyncio.sleep(0.01)
            await response.write(b"a")
        return await hangs(request)

    async with site(handler) as server, Fetcher(LOOPBACK, 0.1) as fetcher:
        assert await failure(fetcher, server.url) == "it took more than 0.1 seconds"


class NameServer(asyncio.DatagramProtocol):
    """Resolves quick.example to 127.0.0.1, and ignores all other questions."""

    def __init__(self) -> None:
        self.asked: set[bytes] = set()

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        question = data[12 : data.index(b"\0", 12) + 5]
        self.asked.add(question)
        if question.startswith(b"\5quick"):
            header = data[:2] + b"\x81\x80\0\1\0\1\0\0\0\0"
            is_a = question[-4:-2] == b"\0\1"
            answer = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4\x7f\0\0\1" if is_a else b""
            self.transport.sendto((header if is_a else header[:6] + bytes(6)) + question + answer, address)


async def test_slow_names_block_no_others() -> None:
    loop = asyncio.get_running_loop()
    transport, names = await loop.create_datagram_endpoint(NameServer, ("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    resolver = aiohttp.AsyncResolver(nameservers=["127.0.0.1"], udp_port=port, timeout=30)
    slow = [f"http://slow-{number}.example/" for number in range(48)]
    try:
        async with site(says()) as server, Fetcher(LOOPBACK, 30, resolver) as fetcher:
            waiting = [asyncio.create_task(fetcher.fetch(url, LIMIT, "f")) for url in slow]
            await eventually(lambda: len(names.asked) >= len(slow))
            url = server.url.replace("127.0.0.1", "quick.example")
            assert await fetcher.fetch(url, LIMIT, "f") == b"media"
            assert not any(task.done() for task in waiting)
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            assert all(task.cancelled() for task in waiting)
    finally:
        transport.close()


async def test_closed_port_is_reported() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with Fetcher(LOOPBACK, 5) as fetcher:
        assert "connect" in await failure(fetcher, f"http://127.0.0.1:{port}/")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 10_000 + b"\r\n",
    ],
    ids=["nothing", "ssh", "half", "half a chunk", "negative", "endless header", "endless headers"],
)
async def test_invalid_response_is_reported(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Fetcher(LOOPBACK, 5) as fetcher:
        assert "HTTP" in await failure(fetcher, f"http://127.0.0.1:{port}/")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")
@pytest.mark.parametrize("host", ["a.example", "b.example"])
@pytest.mark.parametrize("trusted", [True, False])
async def test_certificate_is_verified(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, host: str, trusted: bool
) -> None:
    certificate, key = self_signed(tmp_path, "a.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    if trusted:
        trusting = ssl.create_default_context(cafile=certificate)
        monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", trusting)
    names = Names("127.0.0.1")
    async with site(says(), ssl_context=context) as server, Fetcher(LOOPBACK, 5, names) as fetcher:
        url = f"https://{host}:{server.url.rpartition(':')[2]}/"
        if trusted and host == "a.example":
            assert await fetcher.fetch(url, LIMIT, "f") == b"media"
        else:
            assert "certificate" in await failure(fetcher, url)
            assert not server.requests


def self_signed(folder: Any, name: str) -> tuple[str, str]:
    """A certificate for `name`, and its key, as files."""
    certificate, key = str(folder / "a.pem"), str(folder / "a.key")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-keyout", key, "-out", certificate, "-days", "2", "-subj", f"/CN={name}"),
            *("-addext", f"subjectAltName=DNS:{name}"),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


async def test_slow_host_does_not_block_others(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    clock = loop.time
    both = (ip_network("127.0.0.0/30"),)
    async with site(hangs) as slow, site(says(), "127.0.0.2") as quick, Fetcher(both, 30) as fetcher:
        tasks = [
            asyncio.create_task(fetcher.fetch(slow.url, LIMIT, "f"))
            for _ in range(4 * MAX_FETCHES_PER_CLIENT)
        ]
        await slow.until_requests(MAX_FETCHES_PER_HOST)
        assert await fetcher.fetch(quick.url, LIMIT, "f") == b"media"
        assert len(slow.requests) == MAX_FETCHES_PER_HOST
        # An hour passes: those with a slot time out, and the next ones start with their full time.
        monkeypatch.setattr(loop, "time", lambda: clock() + 3600)
        await eventually(lambda: sum(task.done() for task in tasks) == MAX_FETCHES_PER_HOST)
        await slow.until_requests(2 * MAX_FETCHES_PER_HOST)
        assert sum(task.done() for task in tasks) == MAX_FETCHES_PER_HOST
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # All slots are free again.
        again = [
            asyncio.create_task(fetcher.fetch(slow.url, LIMIT, "f")) for _ in range(MAX_FETCHES_PER_HOST)
        ]
        await slow.until_requests(3 * MAX_FETCHES_PER_HOST)
        for task in again:
            task.cancel()
        await asyncio.gather(*again, return_exceptions=True)


async def test_busy_client_does_not_block_others() -> None:
    """One client wants all slots, on as many hosts as it needs for that."""
    both = (ip_network("127.0.0.0/8"),)
    async with contextlib.AsyncExitStack() as stack:
        hosts = [await stack.enter_async_context(site(hangs, f"127.0.1.{n}")) for n in range(1, 9)]
        quick = await stack.enter_async_context(site(says()))
        fetcher = await stack.enter_async_context(Fetcher(both, 30))
        greedy = [
            asyncio.create_task(fetcher.fetch(host.url, LIMIT, "f", b"greedy"))
            for host in hosts
            for _ in range(MAX_FETCHES_PER_HOST)
        ]
        await eventually(lambda: sum(len(host.requests) for host in hosts) >= MAX_FETCHES_PER_CLIENT)
        assert await fetcher.fetch(quick.url, LIMIT, "f", b"other") == b"media"
        # A host is limited for each client apart.
        other = asyncio.create_task(fetcher.fetch(hosts[0].url, LIMIT, "f", b"other"))
        await hosts[0].until_requests(MAX_FETCHES_PER_HOST + 1)
        for task in (*greedy, other):
            task.cancel()
        await asyncio.gather(*greedy, other, return_exceptions=True)
        assert sum(len(host.requests) for host in hosts) == MAX_FETCHES_PER_CLIENT + 1


async def test_cancelled_fetch_closes_its_connection() -> None:
    async with site(hangs) as server, Fetcher(LOOPBACK, 30) as fetcher:
        task = asyncio.create_task(fetcher.fetch(server.url, LIMIT, "f"))
        await server.until_requests(1)
        task.cancel()
        async with hang_guard():
            await server.left.wait()
