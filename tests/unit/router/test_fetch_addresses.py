"""Media is fetched from public addresses only, also after redirects and DNS changes (SSRF)."""

import shutil
import ssl
import subprocess
from typing import Any

import pytest
from aiohttp import web

from tests.fakes.hang_guard import GUARD_SECONDS
from tests.fakes.site import says, site
from tests.unit.router.fetching import LIMIT, LOOPBACK, Names, failure
from triptych.router.media import fetch
from triptych.router.media.addresses import NOT_PUBLIC
from triptych.router.media.fetch import MAX_ADDRESSES, MAX_REDIRECTS, Fetcher, PublicResolver


async def test_this_machine_is_refused() -> None:
    async with site(says()) as server, Fetcher((), GUARD_SECONDS) as fetcher:
        port = server.url.rpartition(":")[2]
        for host in ("127.0.0.1", "localhost", "127.1", "2130706433", "[::ffff:127.0.0.1]", "0.0.0.0"):
            assert "127.0.0.1" not in await failure(fetcher, f"http://{host}:{port}/")
        assert not server.requests


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254"])
async def test_name_of_private_address_is_refused(address: str) -> None:
    names = Names(address)
    async with Fetcher((), GUARD_SECONDS, names) as fetcher:
        assert await failure(fetcher, "http://intranet.example:1/") == NOT_PUBLIC
        assert names.asked == ["intranet.example"]
    # Nor can a client tell it from a name that does not exist.
    async with Fetcher((), GUARD_SECONDS, Names()) as fetcher:
        assert await failure(fetcher, "http://intranet.example:1/") == NOT_PUBLIC


async def test_only_allowed_addresses_are_used() -> None:
    names = Names("10.0.0.1,127.0.0.1,169.254.169.254")
    resolver = PublicResolver(LOOPBACK, names)
    assert [entry["host"] for entry in await resolver.resolve("a.example", 80)] == ["127.0.0.1"]
    async with site(says()) as server, Fetcher(LOOPBACK, GUARD_SECONDS, names) as fetcher:
        url = server.url.replace("127.0.0.1", "a.example")
        assert await fetcher.fetch(url, LIMIT, "f") == b"media"


async def test_only_a_few_addresses_are_tried() -> None:
    resolver = PublicResolver(LOOPBACK, Names(",".join(["10.0.0.1"] + ["127.0.0.1"] * 1000)))
    assert len(await resolver.resolve("a.example", 80)) == MAX_ADDRESSES


async def test_dns_rebinding_is_refused() -> None:
    """A second lookup for the same connection would lead to the secret."""
    async with site(says(b"secret"), "127.0.0.2") as secret, site(says(b"public"), "127.0.0.1") as public:
        names = Names("127.0.0.1", "127.0.0.2")
        async with Fetcher(LOOPBACK, GUARD_SECONDS, names) as fetcher:
            url = public.url.replace("127.0.0.1", "a.example")
            assert await fetcher.fetch(url, LIMIT, "f") == b"public"
            assert names.asked == ["a.example"]
            # A new connection resolves the name again.
            assert await failure(fetcher, secret.url.replace("127.0.0.2", "a.example")) == NOT_PUBLIC
            assert len(names.asked) == 2
        assert not secret.requests


async def test_socket_factory_checks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "check_url", lambda text, _: fetch.parse(text))
    async with site(says()) as server, Fetcher((), GUARD_SECONDS) as fetcher:
        assert await failure(fetcher, server.url) == NOT_PUBLIC
        assert not server.requests


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_is_followed(status: int) -> None:
    async def handler(request: web.Request) -> web.Response:
        if request.path == "/old/a":
            return web.Response(status=status, headers={"Location": "../new?b=c"}, body=b"moved")
        return web.Response(body=request.raw_path.encode())

    async with site(handler) as server, Fetcher(LOOPBACK, GUARD_SECONDS) as fetcher:
        assert await fetcher.fetch(f"{server.url}/old/a", LIMIT, "f") == b"/new?b=c"


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.2:{port}/",
        "//127.0.0.2:{port}/",
        "http://secret.example:{port}/",
        "file:///etc/passwd",
        # This leads back to the same server.
        "http://me:secret@{own}/",
        "http://[",
    ],
)
async def test_redirect_target_is_checked(location: str) -> None:
    async with site(says(b"secret"), "127.0.0.2") as secret:
        port = secret.url.rpartition(":")[2]

        async def redirects(request: web.Request) -> web.Response:
            target = location.format(port=port, own=request.host)
            return web.Response(status=302, headers={"Location": target})

        async with site(redirects) as server, Fetcher(LOOPBACK, GUARD_SECONDS, Names("127.0.0.2")) as fetcher:
            assert "127.0.0.2" not in await failure(fetcher, server.url)
            assert len(server.requests) == 1
        assert not secret.requests


async def test_redirects_are_limited() -> None:
    async def handler(request: web.Request) -> web.Response:
        left = int(request.path.strip("/"))
        return web.Response(status=302, headers={"Location": f"/{left - 1}"}) if left else web.Response()

    async with site(handler) as server, Fetcher(LOOPBACK, GUARD_SECONDS) as fetcher:
        assert await fetcher.fetch(f"{server.url}/{MAX_REDIRECTS}", LIMIT, "f") == b""
        server.requests.clear()
        assert "redirects" in await failure(fetcher, f"{server.url}/{MAX_REDIRECTS + 1}")
        assert len(server.requests) == MAX_REDIRECTS + 1


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")
@pytest.mark.parametrize(
    ("host", "trusted"), [("a.example", False), ("b.example", True), ("a.example", True)]
)
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
    async with (
        site(says(), ssl_context=context) as server,
        Fetcher(LOOPBACK, GUARD_SECONDS, names) as fetcher,
    ):
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
