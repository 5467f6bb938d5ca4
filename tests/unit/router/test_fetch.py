"""Fetching over real sockets: limits, redirects, SSRF, and fairness between hosts."""

import asyncio
import gzip
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Sequence
from ipaddress import ip_network
from typing import Any

import pytest
from aiohttp import web

from router.errors import MediaUnreachable, TooLarge
from router.media import fetch
from router.media.addresses import NOT_PUBLIC
from router.media.fetch import MAX_FETCHES, MAX_FETCHES_PER_HOST, MAX_REDIRECTS, Fetcher, PublicResolver
from tests.fakes.router import eventually
from tests.fakes.site import hangs, says, site

LOOPBACK = (ip_network("127.0.0.1/32"),)
LIMIT = 200_000


def resolves_to(*addresses: str) -> tuple[fetch.Lookup, list[str]]:
    """A resolver that returns the next of `addresses` each time, and the hosts it was asked for."""
    asked: list[str] = []

    def lookup(host: str, port: int) -> Sequence[tuple[int, int, int, str, tuple[object, ...]]]:
        address = addresses[min(len(asked), len(addresses) - 1)]
        asked.append(host)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (part, port))
            for part in address.split(",")
        ]

    return lookup, asked


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
    lookup, _ = resolves_to("127.0.0.1")
    async with site(sets_a_cookie) as server, site(hangs) as proxy, Fetcher(LOOPBACK, 5, lookup) as fetcher:
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
    lookup, asked = resolves_to(address)
    async with Fetcher((), 5, lookup) as fetcher:
        assert await failure(fetcher, "http://intranet.example:1/") == NOT_PUBLIC
        assert asked == ["intranet.example"]


async def test_private_names_are_not_leaked() -> None:
    def unknown(host: str, port: int) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    lookup, _ = resolves_to("10.0.0.1")
    async with Fetcher((), 5, lookup) as inside, Fetcher((), 5, unknown) as nowhere:
        assert await failure(inside, "http://a.example/") == await failure(nowhere, "http://a.example/")


async def test_only_allowed_addresses_are_used() -> None:
    lookup, _ = resolves_to("10.0.0.1,127.0.0.1,169.254.169.254")
    resolver = PublicResolver(LOOPBACK, lookup)
    assert [entry["host"] for entry in await resolver.resolve("a.example", 80)] == ["127.0.0.1"]
    await resolver.close()
    async with site(says()) as server, Fetcher(LOOPBACK, 5, lookup) as fetcher:
        url = server.url.replace("127.0.0.1", "a.example")
        assert await fetcher.fetch(url, LIMIT, "f") == b"media"


async def test_dns_rebinding_is_refused() -> None:
    """A second lookup for the same connection would lead to the secret."""
    async with site(says(b"secret"), "127.0.0.2") as secret, site(says(b"public"), "127.0.0.1") as public:
        lookup, asked = resolves_to("127.0.0.1", "127.0.0.2")
        async with Fetcher(LOOPBACK, 5, lookup) as fetcher:
            url = public.url.replace("127.0.0.1", "a.example")
            assert await fetcher.fetch(url, LIMIT, "f") == b"public"
            assert asked == ["a.example"]
            # A new connection resolves the name again.
            assert await failure(fetcher, secret.url.replace("127.0.0.2", "a.example")) == NOT_PUBLIC
            assert len(asked) == 2
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
        lookup, _ = resolves_to("127.0.0.2")

        async def redirects(request: web.Request) -> web.Response:
            own_port = request.host.rpartition(":")[2]
            target = location.format(port=port, own=request.host, own_port=own_port)
            return web.Response(status=302, headers={"Location": target})

        async with site(redirects) as server, Fetcher(LOOPBACK, 5, lookup) as fetcher:
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
            async with asyncio.timeout(5):
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


async def test_slow_dns_blocks_no_other_host() -> None:
    release = threading.Event()
    asked = threading.Event()

    def slow(host: str, port: int) -> Any:
        asked.set()
        release.wait(20)
        raise socket.gaierror

    async with site(says()) as server, Fetcher(LOOPBACK, 20, slow) as fetcher:
        waiting = asyncio.create_task(failure(fetcher, "http://slow.example/"))
        await asyncio.to_thread(asked.wait, 20)
        assert await fetcher.fetch(server.url, LIMIT, "f") == b"media"
        assert not waiting.done()
        release.set()
        assert await waiting == NOT_PUBLIC


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
    ],
    ids=["nothing", "ssh", "half", "half a chunk", "negative", "endless header"],
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
    lookup, _ = resolves_to("127.0.0.1")
    async with site(says(), ssl_context=context) as server, Fetcher(LOOPBACK, 5, lookup) as fetcher:
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
        tasks = [asyncio.create_task(fetcher.fetch(slow.url, LIMIT, "f")) for _ in range(4 * MAX_FETCHES)]
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


async def test_cancelled_fetch_closes_its_connection() -> None:
    async with site(hangs) as server, Fetcher(LOOPBACK, 30) as fetcher:
        task = asyncio.create_task(fetcher.fetch(server.url, LIMIT, "f"))
        await server.until_requests(1)
        task.cancel()
        async with asyncio.timeout(5):
            await server.left.wait()
