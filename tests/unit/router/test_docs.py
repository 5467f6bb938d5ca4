"""The OpenAPI document against the code it speaks of, and the page made from it."""

import hashlib
import json
import re
import shlex
from collections.abc import AsyncIterator, Iterator
from html import unescape
from typing import Any, get_args

import httpx
import pytest

from router.api.app import App
from router.api.plan import MODEL
from router.api.schema import TASKS, EmbeddingRequest, EmbeddingType
from router.errors import TABLE
from router.settings import RouterSettings
from tests.unit.router.apps import Workers, client_of_app


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with client_of_app(Workers()) as client:
        yield client


@pytest.fixture
async def document(client: httpx.AsyncClient) -> dict[str, Any]:
    return (await client.get("/openapi.json")).json()


def references(part: object) -> Iterator[str]:
    match part:
        case dict():
            yield from (value for key, value in part.items() if key == "$ref")
            for value in part.values():
                yield from references(value)
        case list():
            for value in part:
                yield from references(value)


def resolve(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def fits(document: dict[str, Any], schema: dict[str, Any], value: object) -> bool:
    """Whether `value` is what `schema` says: as much of JSON Schema as the document uses."""
    schema = resolve(document, schema)
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return any(fits(document, part, value) for part in schema[key])
    if "const" in schema:
        return value == schema["const"]
    if "enum" in schema and value not in schema["enum"]:
        return False
    match schema.get("type"):
        case "object":
            if not isinstance(value, dict) or not set(schema.get("required", ())) <= set(value):
                return False
            known = schema.get("properties", {})
            rest = schema.get("additionalProperties")
            if known and not set(value) <= set(known):
                return False
            parts = {name: known.get(name, rest if isinstance(rest, dict) else {}) for name in value}
            return all(fits(document, part, value[name]) for name, part in parts.items())
        case "array":
            return isinstance(value, list) and all(fits(document, schema["items"], part) for part in value)
        case "string":
            return isinstance(value, str) and re.search(schema.get("pattern", ""), value) is not None
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "boolean":
            return isinstance(value, bool)
        case "null":
            return value is None
    return True


def test_the_document_can_be_checked_against() -> None:
    """What stands below would hold of anything if `fits` did."""
    schema = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}
    assert fits({}, schema, {"a": 1})
    for wrong in ({}, {"a": "1"}, {"a": True}, {"a": 1, "b": 2}, []):
        assert not fits({}, schema, wrong)


async def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    found = set(references(document))
    assert found
    for reference in found:
        assert reference.startswith("#/components/schemas/")
        assert reference.rpartition("/")[2] in document["components"]["schemas"]


async def test_the_paths_are_those_that_are_served(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    settings = RouterSettings(workers=[{"targets": ["a:1"], "labels": {"task": "code"}}])  # type: ignore[list-item]
    served = {
        (path.replace("/v1/models/", "/v1/models/{id}") if path.endswith("/") else path, method.lower())
        for path, methods in App(settings)._routes.items()
        for method in methods
    }
    documented = {(path, method) for path, methods in document["paths"].items() for method in methods}
    assert documented == served - {("/openapi.json", "get"), ("/docs", "get")}


async def test_the_fields_are_those_that_are_read(document: dict[str, Any]) -> None:
    body = document["paths"]["/v1/embeddings"]["post"]["requestBody"]
    schema = resolve(document, body["content"]["application/json"]["schema"])
    assert set(schema["properties"]) == set(EmbeddingRequest.model_fields)
    assert schema["required"] == ["input"]
    text = json.dumps(schema)
    assert all(task in text for task in TASKS)
    assert all(f'"{form}"' in text for form in get_args(EmbeddingType))
    for field in ("task", "embedding_type", "dimensions", "truncate"):
        choices = EmbeddingRequest.model_fields[field].validation_alias.choices  # type: ignore[union-attr]
        described = schema["properties"][field]["description"]
        assert all(f"`{alias}`" in described for alias in choices if alias != field)


@pytest.mark.parametrize("guarded", [False, True])
async def test_every_status_of_the_table_is_documented(workers: Workers, guarded: bool) -> None:
    keys = [hashlib.sha256(b"a").hexdigest()] if guarded else []
    async with client_of_app(workers, api_keys=keys) as client:
        headers = {"authorization": "Bearer a"} if guarded else {}
        document = (await client.get("/openapi.json", headers=headers)).json()
    post = document["paths"]["/v1/embeddings"]["post"]
    documented = {
        (int(status), code)
        for status, reply in post["responses"].items()
        for code in re.findall("`([A-Z_]+)`:", reply["description"])
    }
    without_key = {
        (status, code) for status, code in TABLE.values() if not code.startswith(("AUTH_", "RATE_"))
    }
    expected = set(TABLE.values()) if guarded else without_key
    assert documented == {entry for entry in expected if entry[0] not in (404, 405)}
    assert ("security" in post) == guarded


async def test_only_the_open_paths_are_documented_as_open(workers: Workers) -> None:
    async with client_of_app(workers, api_keys=[hashlib.sha256(b"a").hexdigest()]) as client:
        document = (await client.get("/openapi.json", headers={"authorization": "Bearer a"})).json()
    free = {
        path
        for path, operations in document["paths"].items()
        if any("security" not in operation for operation in operations.values())
    }
    assert free == {"/health", "/live"}


@pytest.mark.parametrize(
    "body",
    [
        {"input": ["a", "b"]},
        {"input": "a", "embedding_type": "base64"},
        {"input": "a", "embedding_type": "binary"},
        {"input": "a", "return_multivector": True},
        {"input": "a", "return_multivector": True, "embedding_type": "base64"},
        {"input": []},
        {"input": "a", "model": "x"},
        {"input": {"image": "x"}},
    ],
    ids=str,
)
async def test_replies_are_as_documented(client: httpx.AsyncClient, body: object) -> None:
    document = (await client.get("/openapi.json")).json()
    reply = await client.post("/v1/embeddings", json=body)
    documented = document["paths"]["/v1/embeddings"]["post"]["responses"][str(reply.status_code)]
    assert fits(document, documented["content"]["application/json"]["schema"], reply.json())
    required = [name for name, header in documented["headers"].items() if header.get("required")]
    assert len(required) == (6 if reply.status_code == 200 else 5)
    assert all(name.lower() in reply.headers for name in required)


@pytest.mark.parametrize(
    "path", ["/v1/models", "/v1/models/x", f"/v1/models/{MODEL}", "/ready", "/live", "/targets"]
)
async def test_what_can_be_read_is_as_documented(client: httpx.AsyncClient, path: str) -> None:
    document = (await client.get("/openapi.json")).json()
    reply = await client.get(path)
    entry = "/v1/models/{id}" if path.startswith("/v1/models/") else path
    documented = document["paths"][entry]["get"]["responses"][str(reply.status_code)]
    assert fits(document, documented["content"]["application/json"]["schema"], reply.json())


async def test_the_page_loads_nothing(client: httpx.AsyncClient) -> None:
    page = (await client.get("/docs")).text
    assert re.findall(r"<(script|link|img|iframe|object|embed)\b", page) == []
    assert re.findall(r"(?:url\(|@import|\bsrc=)", page) == []
    links = re.findall(r'href="?([^">]+)', page)
    assert links
    assert all(link.startswith("/") and not link.startswith("//") for link in links)
    addresses = set(re.findall(r"https?://[^\s/<'\"&]+", page)) - {"http://router:80", "http://router"}
    assert addresses == set()


async def test_the_page_has_every_path_and_field(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    page = unescape((await client.get("/docs")).text)
    assert all(path in page for path in document["paths"])
    assert all(f"<code>{field}</code>" in page for field in EmbeddingRequest.model_fields)


async def test_the_examples_on_the_page_run(client: httpx.AsyncClient) -> None:
    page = (await client.get("/docs")).text
    examples = [unescape(example) for example in re.findall(r"<pre>(.*?)</pre>", page, re.DOTALL)]
    assert examples
    for example in examples:
        words = shlex.split(example)
        body = words[words.index("-d") + 1].encode()
        assert words[0] == "curl"
        assert words[1].startswith("http://router")
        reply = await client.post(httpx.URL(words[1]).path, content=body)
        assert reply.status_code == 200, reply.text


async def test_a_host_from_outside_cannot_write_into_the_page(client: httpx.AsyncClient) -> None:
    page = (await client.get("/docs", headers={"host": "<script>x</script>"})).text
    assert "<script>" not in page
