"""CORS: preflight requests, reply headers, and the setting."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from tests.unit.router.apps import Workers, client_of_app, settings_of

ORIGIN, OTHER = "https://app.example.org", "https://evil.example.org"
KEY = "triptych_" + "k" * 32
GUARDED: dict[str, Any] = {
    "api_keys": [
        {"name": "one", "sha256": hashlib.sha256(KEY.encode()).hexdigest(), "requests_per_minute": 1}
    ]
}
ALLOW, EXPOSE = "access-control-allow-origin", "access-control-expose-headers"
PATHS = ["/v1/embeddings", "/v1/rerank", "/v1/models", "/v1/models/x", "/ready", "/metrics", "/nowhere"]


@asynccontextmanager
async def allowing(*origins: str, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of_app(Workers(), cors_origins=origins, **settings) as client:
        yield client


def asking(origin: str = ORIGIN, **more: str) -> dict[str, str]:
    """The headers of a preflight."""
    return {"origin": origin, "access-control-request-method": "POST", **more}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("origins", [["*"], ["https://else.example.org", ORIGIN]])
async def test_preflight_needs_no_key(path: str, origins: list[str]) -> None:
    async with allowing(*origins, **GUARDED) as client:
        wanted = "authorization,content-type,x-stainless-os"
        headers = asking(**{"access-control-request-headers": wanted})
        # It does not count for a limit.
        for _ in range(3):
            reply = await client.options(path, headers=headers)
            assert reply.status_code == 200
            assert reply.headers[ALLOW] == ("*" if origins == ["*"] else ORIGIN)
            assert "POST" in reply.headers["access-control-allow-methods"]
            assert reply.headers["access-control-allow-headers"] == wanted
            assert int(reply.headers["access-control-max-age"]) > 0
            assert reply.content == b""


@pytest.mark.parametrize(
    "headers",
    [asking(OTHER), {"origin": ORIGIN}, {"access-control-request-method": "POST"}, {}],
    ids=["another origin", "no method", "no origin", "neither"],
)
async def test_other_options_return_405(headers: dict[str, str]) -> None:
    async with allowing(ORIGIN) as client:
        reply = await client.options("/v1/embeddings", headers=headers)
        assert reply.status_code == 405
        assert "access-control-allow-methods" not in reply.headers


@pytest.mark.parametrize("origins", [["*"], [ORIGIN]])
async def test_allowed_origin_may_read_replies(origins: list[str]) -> None:
    async with allowing(*origins, **GUARDED) as client:
        bearer = {"authorization": f"Bearer {KEY}"}
        replies = [
            await client.post("/v1/embeddings", json=body, headers={"origin": ORIGIN, **more})
            for body, more in [({"input": "a"}, bearer), ({"input": "a"}, bearer), ({"input": "a"}, {})]
        ]
        replies += [await client.get(path, headers={"origin": ORIGIN}) for path in ("/health", "/nowhere")]
        assert [reply.status_code for reply in replies] == [200, 429, 401, 200, 401]
        for reply in replies:
            assert reply.headers[ALLOW] == ("*" if origins == ["*"] else ORIGIN)
            assert reply.headers.get("vary") == (None if origins == ["*"] else "origin")
            exposed = reply.headers[EXPOSE].split(", ")
            ours = {name for name in reply.headers if name.startswith(("x-", "retry-"))}
            assert ours <= set(exposed)


async def test_other_origin_is_not_allowed() -> None:
    async with allowing(ORIGIN) as client:
        for headers in ({"origin": OTHER}, {"origin": ORIGIN.upper()}, {"origin": "null"}, {}):
            reply = await client.get("/health", headers=headers)
            assert ALLOW not in reply.headers
            # A cache must not give this reply to the allowed page.
            assert reply.headers["vary"] == "origin"


async def test_cors_is_off_by_default() -> None:
    async with allowing() as client:
        assert (await client.options("/v1/embeddings", headers=asking())).status_code == 405
        reply = await client.post("/v1/embeddings", json={"input": "a"}, headers={"origin": ORIGIN})
        assert not {ALLOW, EXPOSE, "vary"} & set(reply.headers)


@pytest.mark.parametrize(
    ("origins", "right"),
    [
        (["https://app.example.org/page?a=b"], "https://app.example.org"),
        (["https://App.Example.org:443"], "https://app.example.org"),
        (["http://user@localhost:80"], "http://localhost"),
        (["https://m\u00fcnchen.de"], "https://xn--mnchen-3ya.de"),
        *(([wrong], "scheme://host") for wrong in ("app.example.org", "https://*.example.org", "null", "")),
        (["*", ORIGIN], "*"),
    ],
)
def test_invalid_origin_is_refused(origins: list[str], right: str) -> None:
    with pytest.raises(ValidationError) as caught:
        settings_of(cors_origins=origins)
    [error] = caught.value.errors()
    assert error["loc"][0] == "cors_origins"
    assert right in error["msg"]


@pytest.mark.parametrize(
    "origins", [["*"], [], [ORIGIN, "http://localhost:5173", "http://[::1]:3000", "chrome-extension://abc"]]
)
def test_valid_origins_are_accepted(origins: list[str]) -> None:
    assert list(settings_of(cors_origins=origins).cors_origins) == origins
