"""The OpenAPI document against the code that it describes, and the page that shows it."""

import hashlib
import json
import re
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from tests.unit.router.apps import Workers, client_of_app, settings_of
from triptych.router.api.app import App, methods_of
from triptych.router.api.cors import EXPOSED
from triptych.router.api.pages import PAGE_PATHS
from triptych.router.errors import all_errors


@pytest.fixture
async def document(client: httpx.AsyncClient) -> dict[str, Any]:
    return (await client.get("/openapi.json")).json()


async def guarded_document(workers: Workers) -> dict[str, Any]:
    async with client_of_app(workers, api_keys=[hashlib.sha256(b"a").hexdigest()]) as client:
        return (await client.get("/openapi.json", headers={"authorization": "Bearer a"})).json()


def check(document: dict[str, Any], schema: dict[str, Any], value: object) -> None:
    """Fail unless `value` has the documented fields, and no others."""
    components = json.loads(json.dumps(document["components"]))
    for model in components["schemas"].values():
        if "properties" in model:
            model["additionalProperties"] = False
    Draft202012Validator(schema | {"components": components}).validate(value)


async def test_paths_are_those_served(document: dict[str, Any]) -> None:
    served = {
        (path.replace("/v1/models/", "/v1/models/{id}") if path.endswith("/") else path, method.lower())
        for path in App(settings_of()).routes
        for method in methods_of(path)
        if method != "HEAD" and path not in PAGE_PATHS and not path.startswith(("/openapi.json", "/docs"))
    }
    documented = {(path, method) for path, methods in document["paths"].items() for method in methods}
    assert documented == served


async def test_patterns_are_ecmascript(document: dict[str, Any]) -> None:
    """With the flag `u`, which validators set, only syntax characters and classes may be escaped."""
    patterns: list[str] = []
    json.loads(json.dumps(document), object_hook=lambda part: patterns.append(part.get("pattern", "")))
    assert len(set(patterns)) > 2
    assert re.findall(r"\\[^]^$\\.*+?()[{}|/dDsSwW]", " ".join(patterns)) == []


@pytest.mark.parametrize("guarded", [False, True])
async def test_every_error_is_documented(document: dict[str, Any], workers: Workers, guarded: bool) -> None:
    post = (await guarded_document(workers) if guarded else document)["paths"]["/v1/embeddings"]["post"]
    documented = {
        (int(status), code)
        for status, reply in post["responses"].items()
        for code in re.findall("`([A-Z_]+)`:", reply["description"])
    }
    assert documented == {
        (kind.status, kind.code)
        for kind in all_errors()
        if kind.status not in (404, 405) and (guarded or not kind.code.startswith(("AUTH_", "RATE_")))
    }


async def test_only_health_checks_are_open(document: dict[str, Any], workers: Workers) -> None:
    def open_paths(described: dict[str, Any]) -> set[str]:
        return {
            path
            for path, operations in described["paths"].items()
            if any("security" not in operation for operation in operations.values())
        }

    assert open_paths(await guarded_document(workers)) == {"/health", "/live"}
    assert open_paths(document) == set(document["paths"])


async def test_documented_headers_are_exposed_to_pages(workers: Workers) -> None:
    document = await guarded_document(workers)
    responses = [
        response
        for operations in document["paths"].values()
        for operation in operations.values()
        for response in operation["responses"].values()
    ]
    named = {name.lower() for response in responses for name in response["headers"]}
    assert {name for name in named if name.startswith("x-")} <= set(EXPOSED)


async def test_examples_run(client: httpx.AsyncClient, document: dict[str, Any]) -> None:
    for path in ("/v1/embeddings", "/v1/rerank"):
        post = document["paths"][path]["post"]
        content = post["requestBody"]["content"]["application/json"]
        answer = post["responses"]["200"]["content"]["application/json"]
        assert content["examples"]
        for example in content["examples"].values():
            check(document, content["schema"], example["value"])
            reply = await client.post(path, json=example["value"])
            assert reply.status_code == 200, reply.text
            check(document, answer["schema"], reply.json())


@pytest.mark.parametrize(("path", "count"), [("/", 2), ("/docs", 4)])
async def test_page_loads_only_own_assets(client: httpx.AsyncClient, path: str, count: int) -> None:
    page = await client.get(path)
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert not re.search(r"unsafe|https?:|\*", policy)
    links = re.findall(r'<(?:script|link)[^>]* (?:src|href)="([^"]*)"', page.text)
    own = [link for link in links if not link.startswith("data:")]
    assert len(own) == count
    for link in own:
        asset = await client.get(page.url.join(link))
        assert asset.status_code == 200
        assert asset.headers["x-content-type-options"] == "nosniff"
    # Inline scripts and styles would not run under the policy.
    assert re.findall(r"<script(?![^>]* src)|<style| style=| on[a-z]+=", page.text) == []
