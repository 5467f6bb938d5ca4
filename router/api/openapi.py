"""The OpenAPI document, generated from the models of requests and replies."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema
from pydantic_core.core_schema import TaggedUnionSchema

from triptych.router.access.guard import OPEN_PATHS
from triptych.router.api.embeddings import NPY
from triptych.router.api.examples import EXAMPLES
from triptych.router.api.reply_models import (
    CHALLENGE_HEADERS,
    COMMON_HEADERS,
    EMBEDDING_HEADERS,
    LIMIT_HEADERS,
    SPACE_HEADERS,
    EmbeddingReply,
    Error,
    ModelEntry,
    ModelList,
    Readiness,
    RerankReply,
    Status,
    TargetList,
    header,
)
from triptych.router.api.rerank import RerankRequest
from triptych.router.api.schema import ITEMS, EmbeddingRequest
from triptych.router.api.work import SPACES_PATTERN
from triptych.router.errors import Invalid, RateExceeded, all_errors
from triptych.router.pool.served import Served
from triptych.router.settings import RouterSettings
from triptych.workers.shared.families import V4, Family

VERSION = "0.1.0"

Json = dict[str, Any]
Body = type[BaseModel] | type[str]
_WORK_ERRORS = (400, 412, 413, 415, 422, 429, 500, 503, 504)
_TEXT = {"text/plain": {"schema": {"type": "string"}}}

# Of requests for embeddings and rankings; all are optional.
_WORK_HEADERS = {
    "x-priority": header(
        "string",
        "Interactive requests go before bulk ones. By default, a large request is bulk unless it embeds "
        "queries or ranks.",
        enum=["interactive", "bulk"],
    ),
    "x-request-timeout-seconds": header(
        "number", "Seconds after which the request fails with 504.", exclusiveMinimum=0
    ),
    "x-require-vector-space": header(
        "string",
        "Vector spaces that the client accepts, separated by commas, as in the reply's `x-vector-space`. By "
        "default any.",
        pattern=SPACES_PATTERN,
    ),
    "X-Request-Id": header("string", "32 hexadecimal digits; anything else is replaced."),
}


class _AnyOf(GenerateJsonSchema):
    """Writes `anyOf` for unions with a discriminator: a list of strings is also a list of items."""

    def tagged_union_schema(self, schema: TaggedUnionSchema) -> Json:
        union = super().tagged_union_schema(schema)
        return {"anyOf" if key == "oneOf" else key: value for key, value in union.items()}


def openapi(settings: RouterSettings, served: Mapping[Family, Served]) -> Json:
    """The document. Limits and defaults in it are those of `settings`, tasks and sizes those of `served`."""
    models = list(served.values()) or [Served(V4)]
    names = ", ".join(one.family.name for one in models)
    document: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "Triptych",
            "version": VERSION,
            "description": f"Embeddings and rankings by {names}.",
        },
        "paths": {
            "/v1/embeddings": {"post": _embeddings(settings)},
            "/v1/rerank": {"post": _rerank(settings)},
            "/v1/models": _get("The served models", ModelList),
            "/v1/models/{id}": _model(models[0].family.name),
            "/health": _get(
                "For load balancers: the router takes requests",
                Status,
                otherwise="The router is stopping, or does not know its workers yet",
            ),
            "/live": _get("Liveness: the process answers", Status),
            "/ready": _get(
                "Readiness: every pool has a ready replica, or may be empty",
                Readiness,
                otherwise="A pool has no ready replica",
            ),
            "/metrics": _get("Metrics for Prometheus", str),
            "/targets": _get("The workers, for Prometheus' service discovery", TargetList),
        },
        "components": {"schemas": _schemas(models)},
    }
    if settings.guarded:
        _require_key(document)
    return document


def _schemas(models: Sequence[Served]) -> Json:
    requests = (EmbeddingRequest, RerankRequest)
    replies = (EmbeddingReply, RerankReply, Error, ModelList, ModelEntry, Status, Readiness, TargetList)
    _, schemas = models_json_schema(
        [(model, "validation") for model in requests] + [(model, "serialization") for model in replies],
        ref_template="#/components/schemas/{model}",
        schema_generator=_AnyOf,
    )
    definitions: Json = schemas["$defs"]
    tasks = dict.fromkeys(task for one in models for task in (*one.family.tasks, *one.family.other_tasks))
    for model in (EmbeddingRequest, *ITEMS):
        _first_form(definitions, model, "task")["enum"] = list(tasks)
    _first_form(definitions, EmbeddingRequest, "dimensions")["maximum"] = max(
        one.dimensions for one in models
    )
    return definitions


def _first_form(definitions: Json, model: type[BaseModel], field: str) -> Json:
    """The schema of a field that may also be null."""
    forms: list[Json] = definitions[model.__name__]["properties"][field]["anyOf"]
    return forms[0]


def _require_key(document: Json) -> None:
    """Say of every path but the open ones that it needs a key, and that the key may have limits."""
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, operations in document["paths"].items():
        if path in OPEN_PATHS:
            continue
        for operation in operations.values():
            operation["security"] = [{"key": []}]
            responses = operation["responses"]
            responses |= {"401": _error(401), "429": _error(429, limited=True)}
            for response in responses.values():
                response["headers"] |= LIMIT_HEADERS
            responses["401"]["headers"] = COMMON_HEADERS | CHALLENGE_HEADERS


def _embeddings(settings: RouterSettings) -> Json:
    origin = "public addresses" if settings.media_fetch else "no address"
    reply = _reply("The vectors", EmbeddingReply, EMBEDDING_HEADERS)
    reply["content"][NPY] = {"schema": {"type": "string", "format": "binary"}}
    return {
        "summary": "Embed texts and images",
        "description": f"At most {settings.max_items} inputs per request, {settings.max_image_bytes} bytes "
        f"per image, {settings.max_pdf_bytes} bytes and {settings.max_pdf_pages} pages per PDF. Each page "
        f"of a PDF gives a vector. Images and PDFs are fetched from {origin}. The vectors are in the order "
        f"of the inputs; with `Accept: {NPY}` they are one matrix.",
        **_work("/v1/embeddings", EmbeddingRequest, reply, settings),
    }


def _rerank(settings: RouterSettings) -> Json:
    reply = _reply("Best first", RerankReply, SPACE_HEADERS)
    return {
        "summary": "Rank documents by how well they answer a query",
        "description": f"At most {settings.max_items} documents. The score is the mean, over the query's "
        "tokens, of their best match among the document's tokens (late interaction), from -1 to 1; with a "
        "cross-encoder, it is the cross-encoder's score. Documents that are too long are truncated.",
        **_work("/v1/rerank", RerankRequest, reply, settings),
    }


def _work(path: str, request: type[BaseModel], reply: Json, settings: RouterSettings) -> Json:
    """Parameters, body and responses of a request that is queued for a pool."""
    seconds = {"default": settings.request_timeout_seconds, "maximum": settings.max_request_timeout_seconds}
    defaults = {"x-request-timeout-seconds": seconds}
    parameters = [
        {"name": name, "in": "header", **field, "schema": field["schema"] | defaults.get(name, {})}
        for name, field in _WORK_HEADERS.items()
    ]
    examples = {title: {"value": body} for title, body in EXAMPLES[path].items()}
    content = {"application/json": {"schema": _reference(request), "examples": examples}}
    return {
        "parameters": parameters,
        "requestBody": {"required": True, "content": content},
        "responses": {"200": reply, **{str(status): _error(status) for status in _WORK_ERRORS}},
    }


def _get(summary: str, reply: Body, *, otherwise: str | None = None) -> Json:
    """A path that is read. `otherwise` says when it replies the same with status 503."""
    responses = {"200": _reply(summary, reply)} | ({"503": _reply(otherwise, reply)} if otherwise else {})
    return {"get": {"summary": summary, "responses": responses}}


def _model(name: str) -> Json:
    path = _get("One model", ModelEntry)
    id = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}, "example": name}
    path["get"]["parameters"] = [id]
    path["get"]["responses"]["404"] = _error(404)
    return path


def _error(status: int, *, limited: bool = False) -> Json:
    """The response for all errors with `status`; errors of rate limits only if `limited`."""
    kinds = [
        kind
        for kind in all_errors()
        if kind.status == status and (limited or not issubclass(kind, RateExceeded))
    ]
    return _reply("; ".join(f"`{kind.code}`: {_sentence(kind)}" for kind in kinds), Error)


def _sentence(kind: type[Exception]) -> str:
    return "fields break the schema" if kind is Invalid else (kind.__doc__ or "").rstrip(".").lower()


def _reply(description: str, body: Body, headers: Mapping[str, Json] = {}) -> Json:
    content = {"application/json": {"schema": _reference(body)}} if issubclass(body, BaseModel) else _TEXT
    return {"description": description, "headers": {**COMMON_HEADERS, **headers}, "content": content}


def _reference(model: type[BaseModel]) -> Json:
    return {"$ref": f"#/components/schemas/{model.__name__}"}
