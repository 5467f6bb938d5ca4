"""Fetching, over real sockets: limits, redirects, lies about addresses, and that others do not wait."""

import asyncio
import gzip
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Sequence
from contextlib import AsyncExitStack
from ipaddress import ip_network
from typing import Any

import pytest
from aiohttp import web

from router.errors import MediaUnreachable, TooLarge
from router.media import fetch
from router.media.fetch import MAX_FETCHES_PER_HOST, MAX_REDIRECTS, Fetcher, system_lookup
from tests.fakes.router import eventually
from tests.fakes.site import hangs, says, site

LOOPBACK = (ip_network("127.0.0.1/32"),)
LIMIT = 200_000


def resolves_to(*addresses: str) -> tuple[fetch.Lookup, list[str]]:
    """A resolver that gives the next of `addresses` each time, and the hosts it was asked for."""
    asked: list[str] = []

    def lookup(host: str, port: int) -> Sequence[tuple[int, int, int, str, tuple[object, ...]]]:
        address = addresses[min(len(asked), len(addresses) - 1)]
        asked.append(host)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (part, port))
            for part in address.split(",")
        ]

    return lookup, asked


async def failure(fetcher: Fetcher, url: str, limit: int = LIMIT) -> str:
    with pytest.raises(MediaUnreachable) as caught:
        await fetcher.fetch(url, limit, "body -> input -> 1 -> image")
    assert caught.value.detail.startswith("body -> input -> 1 -> image: cannot be fetched: ")
    return caught.value.detail.partition("fetched: ")[2]


async def test_what_is_at_an_address_comes_whole() -> None:
    body = bytes(range(256)) * 500
    async with site(says(body)) as server, Fetcher(LOOPBACK, 10) as fetcher:
        assert await fetcher.fetch(f"{server.url}/a%2Fb.png?b=%2F&c=+%20{{}}", LIMIT, "f") == body
        # To the letter: a signature may stand over it.
        assert server.requests[0].raw_path == "/a%2Fb.png?b=%2F&c=+%20{}"


async def test_a_request_carries_nothing_that_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def sets_a_cookie(request: web.Request) -> web.Response:
        response = web.Response(body=b"a")
        response.set_cookie("who", "you")
        return response

    # By a name, since cookies are not kept for bare addresses anyway.
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


async def test_without_leave_nothing_on_this_machine_is_asked() -> None:
    async with site(says()) as server, Fetcher((), 5) as fetcher:
        port = server.url.rpartition(":")[2]
        for host in ("127.0.0.1", "localhost", "127.1", "2130706433", "[::ffff:127.0.0.1]", "0.0.0.0"):
            reason = await failure(fetcher, f"http://{host}:{port}/")
            assert "127.0.0.1" not in reason
        assert not server.requests


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254"])
async def test_a_name_that_resolves_to_what_is_not_public_is_refused(address: str) -> None:
    lookup, asked = resolves_to(address)
    async with Fetcher((), 5, lookup) as fetcher:
        private = await failure(fetcher, "http://intranet.example:1/")
        assert asked == ["intranet.example"]
        assert private == "its host has no public address"


async def test_whether_a_name_exists_inside_is_not_told() -> None:
    def unknown(host: str, port: int) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    lookup, _ = resolves_to("10.0.0.1")
    async with Fetcher((), 5, lookup) as inside, Fetcher((), 5, unknown) as nowhere:
        assert await failure(inside, "http://a.example/") == await failure(nowhere, "http://a.example/")


async def test_of_several_addresses_only_those_allowed_are_connected_to() -> None:
    async with site(says()) as server:
        port = server.url.rpartition(":")[2]
        lookup, _ = resolves_to("127.0.0.2,127.0.0.1")
        async with Fetcher(LOOPBACK, 5, lookup) as fetcher:
            assert await fetcher.fetch(f"http://a.example:{port}/", LIMIT, "f") == b"media"


async def test_addresses_that_are_not_allowed_do_not_even_leave_the_lookup() -> None:
    """Besides the guard on sockets, which would stop them too."""
    lookup, _ = resolves_to("10.0.0.1,127.0.0.1,169.254.169.254")
    async with Fetcher(LOOPBACK, 5, lookup) as fetcher:
        found = await fetcher._resolver.resolve("a.example", 80)
        assert [entry["host"] for entry in found] == ["127.0.0.1"]


async def test_an_answer_that_changes_after_the_check_changes_nothing() -> None:
    """DNS rebinding: the second lookup would lead to the secret, so there must be none."""
    async with site(says(b"secret"), "127.0.0.2") as secret:
        port = int(secret.url.rpartition(":")[2])
        async with site(says(b"public"), "127.0.0.1") as public:
            lookup, asked = resolves_to("127.0.0.1", "127.0.0.2")
            public_port = int(public.url.rpartition(":")[2])
            async with Fetcher(LOOPBACK, 5, lookup) as fetcher:
                assert await fetcher.fetch(f"http://a.example:{public_port}/", LIMIT, "f") == b"public"
                assert asked == ["a.example"]
                # A new connection asks again, and what it is told now is refused.
                assert await failure(fetcher, f"http://a.example:{port}/") == "its host has no public address"
                assert len(asked) == 2
        assert not secret.requests


async def test_a_socket_is_never_made_for_what_is_not_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should the checks before it ever be fooled, the guard on sockets still holds."""
    monkeypatch.setattr(fetch, "check_url", lambda text, _: fetch.parse(text))
    async with site(says()) as server, Fetcher((), 5) as fetcher:
        assert await failure(fetcher, server.url) == "its host has no public address"
        assert not server.requests


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_followed(status: int) -> None:
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
        # These would lead back to where they come from.
        "http://me:secret@{own}/",
        "http://0x7f.1:{own_port}/",
        "http://2130706433:{own_port}/",
        "http://[",
    ],
)
async def test_a_redirect_is_checked_like_the_first_address(location: str) -> None:
    async with site(says(b"secret"), "127.0.0.2") as secret:
        port = secret.url.rpartition(":")[2]
        lookup, _ = resolves_to("127.0.0.2")

        async def redirects(request: web.Request) -> web.Response:
            own_port = request.host.rpartition(":")[2]
            target = location.format(port=port, own=request.host, own_port=own_port)
            return web.Response(status=302, headers={"Location": target})

        async with (
            site(redirects) as server,
            Fetcher(LOOPBACK, 5, lookup) as fetcher,
        ):
            reason = await failure(fetcher, server.url)
            assert "127.0.0.2" not in reason
            assert len(server.requests) == 1
        assert not secret.requests


async def test_redirects_are_few() -> None:
    async def handler(request: web.Request) -> web.Response:
        left = int(request.path.strip("/"))
        return web.Response(status=302, headers={"Location": f"/{left - 1}"}) if left else web.Response()

    async with site(handler) as server, Fetcher(LOOPBACK, 5) as fetcher:
        assert await fetcher.fetch(f"{server.url}/{MAX_REDIRECTS}", LIMIT, "f") == b""
        server.requests.clear()
        assert "redirects more than" in await failure(fetcher, f"{server.url}/{MAX_REDIRECTS + 1}")
        assert len(server.requests) == MAX_REDIRECTS + 1


async def test_a_redirect_to_itself_ends() -> None:
    async with site(says(status=301, Location="/")) as server, Fetcher(LOOPBACK, 5) as fetcher:
        assert "redirects more than" in await failure(fetcher, server.url)


@pytest.mark.parametrize("status", [204, 206, 304, 400, 401, 403, 404, 500, 503])
async def test_only_a_200_has_media(status: int) -> None:
    async with site(says(b"", status)) as server, Fetcher(LOOPBACK, 5) as fetcher:
        assert await failure(fetcher, server.url) == f"the server answers {status}"


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_is_read_up_to_the_limit_and_no_further(declared: bool) -> None:
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


async def test_a_body_without_end_is_given_up_at_the_limit() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(bytes(65_536))

    async with site(handler) as server, Fetcher(LOOPBACK, 10) as fetcher:
        with pytest.raises(TooLarge):
            await fetcher.fetch(server.url, LIMIT, "f")


async def test_a_declared_size_over_the_limit_ends_it_before_the_body() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = LIMIT + 1
        await response.prepare(request)
        return await hangs(request)

    async with site(handler) as server, Fetcher(LOOPBACK, 10) as fetcher:
        with pytest.raises(TooLarge):
            await fetcher.fetch(server.url, LIMIT, "f")
        async with asyncio.timeout(5):
            await server.left.wait()


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "GZIP", "gzip, gzip"])
async def test_what_comes_compressed_is_refused_and_not_unpacked(encoding: str) -> None:
    bomb = gzip.compress(bytes(20 << 20))
    assert len(bomb) < LIMIT
    async with (
        site(says(bomb, Content_Encoding=encoding)) as server,
        Fetcher(LOOPBACK, 5) as fetcher,
    ):
        assert "compressed" in await failure(fetcher, server.url)


@pytest.mark.parametrize("started", [True, False])
async def test_a_slow_server_is_given_up(started: bool) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if started:
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(b"a")
        return await hangs(request)

    async with site(handler) as server, Fetcher(LOOPBACK, 0.05) as fetcher:
        assert await failure(fetcher, server.url) == "it took more than 0.05 seconds"
        # Unless its time was over before it had asked at all.
        if server.requests:
            async with asyncio.timeout(5):
                await server.left.wait()


async def test_a_server_that_never_stops_to_trickle_is_given_up() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"a")
            await asyncio.sleep(0.01)

    async with site(handler) as server, Fetcher(LOOPBACK, 0.2) as fetcher:
        assert "it took more than" in await failure(fetcher, server.url)


async def test_a_slow_name_is_given_up() -> None:
    release = threading.Event()

    def slow(host: str, port: int) -> Any:
        release.wait(10)
        return system_lookup("127.0.0.1", port)

    async with site(says()) as server, Fetcher(LOOPBACK, 0.1, slow) as fetcher:
        port = server.url.rpartition(":")[2]
        assert "it took more than" in await failure(fetcher, f"http://slow.example:{port}/")
        fetcher._seconds = 10
        # Another host is not held up by it.
        assert await fetcher.fetch(server.url, LIMIT, "f") == b"media"
        release.set()


async def test_a_port_where_nobody_listens_is_told_as_such() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with Fetcher(LOOPBACK, 5) as fetcher:
        assert await failure(fetcher, f"http://127.0.0.1:{port}/") == "its server cannot be connected to"


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
async def test_what_is_no_proper_answer_is_told_as_such(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Fetcher(LOOPBACK, 5) as fetcher:
        reason = await failure(fetcher, f"http://127.0.0.1:{port}/")
        assert reason == "the server broke off, or does not speak HTTP"


needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")


@needs_openssl
async def test_a_certificate_must_stand_the_check(tmp_path: Any) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*self_signed(tmp_path, "a.example"))
    lookup, _ = resolves_to("127.0.0.1")
    async with site(says(), ssl_context=context) as server, Fetcher(LOOPBACK, 5, lookup) as fetcher:
        port = server.url.rpartition(":")[2]
        assert "certificate" in await failure(fetcher, f"https://a.example:{port}/")
        assert not server.requests


@needs_openssl
async def test_a_certificate_is_checked_for_the_name_and_not_for_the_address(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = self_signed(tmp_path, "a.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    lookup, _ = resolves_to("127.0.0.1")
    trusting = ssl.create_default_context(cafile=certificate)
    async with site(says(), ssl_context=context) as server, Fetcher(LOOPBACK, 5, lookup) as fetcher:
        monkeypatch.setattr(fetcher._session.connector, "_ssl", trusting)
        port = server.url.rpartition(":")[2]
        assert await fetcher.fetch(f"https://a.example:{port}/", LIMIT, "f") == b"media"
        assert "certificate" in await failure(fetcher, f"https://b.example:{port}/")


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


async def test_one_host_cannot_take_all_places() -> None:
    async with (
        site(hangs) as slow,
        site(says(), "127.0.0.2") as quick,
        Fetcher((ip_network("127.0.0.0/30"),), 30) as fetcher,
    ):
        count = 4 * fetch.MAX_FETCHES
        tasks = [asyncio.create_task(fetcher.fetch(slow.url, LIMIT, "f")) for _ in range(count)]
        await slow.until_requests(MAX_FETCHES_PER_HOST)
        assert await fetcher.fetch(quick.url, LIMIT, "f") == b"media"
        assert len(slow.requests) == MAX_FETCHES_PER_HOST
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # Nothing is left behind: all places are free again.
        assert not fetcher._hosts
        assert fetcher._places._value == fetch.MAX_FETCHES


async def test_the_time_of_a_fetch_does_not_run_while_it_waits_for_its_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    clock = loop.time
    async with site(says(b"a")) as server, Fetcher(LOOPBACK, 10) as fetcher:
        async with AsyncExitStack() as taken:
            for _ in range(MAX_FETCHES_PER_HOST):
                await taken.enter_async_context(fetcher._place("127.0.0.1"))
            waiting = asyncio.create_task(fetcher.fetch(server.url, LIMIT, "f"))
            await eventually(lambda: fetcher._hosts["127.0.0.1"].users > MAX_FETCHES_PER_HOST)
            # An hour passes: whatever timer runs is due by the second turn of the loop.
            monkeypatch.setattr(loop, "time", lambda: clock() + 3600)
            for _ in range(3):
                await asyncio.sleep(0)
        assert await waiting == b"a"


async def test_who_is_no_longer_waited_for_is_hung_up_on() -> None:
    async with site(hangs) as server, Fetcher(LOOPBACK, 30) as fetcher:
        task = asyncio.create_task(fetcher.fetch(server.url, LIMIT, "f"))
        await server.until_requests(1)
        task.cancel()
        async with asyncio.timeout(5):
            await server.left.wait()
