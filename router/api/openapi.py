"""The OpenAPI document, made from the models that requests are really checked with."""

from typing import Any, Literal

from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema

from router.access.guard import OPEN_PATHS
from router.api.embeddings import NPY
from router.api.plan import MODEL
from router.api.rerank import RerankRequest
from router.api.schema import EmbeddingRequest
from router.api.work import SPACES_PATTERN
from router.errors import TABLE, Invalid, RateExceeded
from router.settings import RouterSettings
from workers.shared.contract import PoolName

VERSION = "0.1.0"


class Usage(BaseModel):
    """What the model read, prefixes included."""

    total_tokens: int
    prompt_tokens: int


class Embedding(BaseModel):
    """The vector of one input."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | list[int] | str = Field(
        description="Numbers for `float`, bytes for `binary` and `ubinary`, a string for `base64`."
    )


class MultiEmbedding(BaseModel):
    """The vectors of one input, one for each token."""

    object: Literal["embeddings"]
    index: int
    embeddings: list[list[float] | list[int] | str]
    tokenized_input: list[str] | None = Field(None, description="With return_tokenized_input only.")


class EmbeddingReply(BaseModel):
    """One entry for each input, in order."""

    model: str = Field(examples=[MODEL])
    object: Literal["list"]
    usage: Usage
    data: list[Embedding | MultiEmbedding]


class Document(BaseModel):
    """A document as it was sent."""

    text: str | None = None
    image: str | None = None


class Ranking(BaseModel):
    """A document's place: `index` is that in the request."""

    index: int
    relevance_score: float
    document: Document | None = Field(None, description="Unless return_documents is false.")


class RerankReply(BaseModel):
    """The documents, best first."""

    model: str
    usage: Usage
    results: list[Ranking]


class FieldFault(BaseModel):
    """One wrong field."""

    field: str = Field(examples=["body -> input -> 3 -> image"])
    message: str
    type: str
    input: Any = Field(description="What came there, cut short when long.")


class OpenAIError(BaseModel):
    """The same error as OpenAI's SDKs read it."""

    message: str = Field(description="The detail.")
    type: Literal["authentication_error", "rate_limit_error", "invalid_request_error", "server_error"]
    code: str


class Error(BaseModel):
    """Every error has this shape."""

    detail: str
    code: str
    request_id: str = Field(pattern="^[0-9a-fA-F]{32}$")
    error: OpenAIError
    errors: list[FieldFault] | None = Field(None, description="With 422 only: each wrong field.")


class ModelEntry(BaseModel):
    """A model that is served. `dimensions` and `max_tokens` are null while no worker is ready."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    tasks: list[str]
    dimensions: int | None
    max_tokens: int | None
    vector_spaces: dict[str, list[str]] = Field(
        description="The vector spaces that each pool serves: one, or two during an upgrade."
    )


class ModelList(BaseModel):
    """The models that are served."""

    object: Literal["list"]
    data: list[ModelEntry]


class Status(BaseModel):
    """The process answers."""

    status: Literal["ok"]


class Readiness(BaseModel):
    """For each pool `ready`, or why it is not. `reason` is what holds the whole router back, else null."""

    ready: bool
    reason: str | None
    pools: dict[str, str]
    vector_spaces: dict[str, list[str]] = Field(
        description="The vector spaces that each pool serves: one, or two during an upgrade."
    )


class TargetLabels(BaseModel):
    """What the workers of a group have in common."""

    task: PoolName
    version: str | None = Field(None, description="Two versions of one pool are an upgrade.")


class Targets(BaseModel):
    """The workers of one pool that this router knows, in the form of Prometheus' `http_sd`."""

    targets: list[str] = Field(examples=[["127.0.0.1:8101"]])
    labels: TargetLabels


_MODELS: tuple[type[BaseModel], ...] = (
    EmbeddingReply,
    RerankReply,
    Error,
    ModelList,
    ModelEntry,
    Status,
    Readiness,
    Targets,
)
_FOR_WORK = (400, 412, 413, 415, 422, 429, 500, 503, 504)
_TIMES = {
    "x-total-time": "Milliseconds from the first byte read to the reply.",
    "x-queue-time": "Milliseconds until the last input was given to a worker.",
    "x-inference-time": "Milliseconds from then until the last vector was in.",
    "x-router-overhead": "Milliseconds of the total that are neither.",
}
_HEADERS = {
    "X-Request-Id": {
        "required": True,
        "schema": {"type": "string"},
        "description": "The one sent, or a new one.",
    },
    **{
        name: {"required": True, "schema": {"type": "number"}, "description": text}
        for name, text in _TIMES.items()
    },
}
_LIMIT_HEADERS = {
    f"X-RateLimit-{what}-{kind}": {
        "schema": {"type": form},
        "description": f"{text} Where the key has a limit.",
    }
    for kind in ("Requests", "Tokens")
    for what, form, text in (
        ("Limit", "integer", "A minute."),
        ("Remaining", "integer", "What may be used now."),
        ("Reset", "string", "Until nothing is used, such as 6m0s."),
    )
}
_SPACE_HEADER = {
    "x-vector-space": {
        "required": True,
        "schema": {"type": "string"},
        "description": "The vector space of each pool's results: `pool=space`, separated by commas.",
    }
}
_EMBEDDING_HEADERS = {
    **_SPACE_HEADER,
    "x-truncated-inputs": {
        "schema": {"type": "string"},
        "description": "The places of inputs that lost tokens to `truncate`, separated by commas.",
    },
    "x-usage-total-tokens": {"schema": {"type": "integer"}, "description": "With a matrix: tokens read."},
    "x-usage-prompt-tokens": {"schema": {"type": "integer"}, "description": "The same."},
}


def openapi(settings: RouterSettings) -> dict[str, Any]:
    """The document."""
    _, schemas = models_json_schema(
        [
            (EmbeddingRequest, "validation"),
            (RerankRequest, "validation"),
            *((model, "serialization") for model in _MODELS),
        ],
        ref_template="#/components/schemas/{model}",
    )
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "Triptych",
            "version": VERSION,
            "description": f"Embeddings by {MODEL}: texts and images, for retrieval, text matching and code.",
        },
        "paths": {
            "/v1/embeddings": {"post": _embeddings(settings)},
            "/v1/rerank": {"post": _rerank(settings)},
            "/v1/models": {"get": _get("The models that are served", "ModelList")},
            "/v1/models/{id}": {
                "get": {
                    **_get("One model", "ModelEntry", 404),
                    "parameters": [
                        {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
                    ],
                }
            },
            "/health": {"get": _get("Whether the process answers", "Status")},
            "/live": {"get": _get("The same", "Status")},
            "/ready": {"get": _ready()},
            "/metrics": {"get": _metrics()},
            "/targets": {"get": _targets()},
        },
        "components": {"schemas": schemas["$defs"]},
    }
    if settings.guarded:
        _guard(document)
    return document


def _guard(document: dict[str, Any]) -> None:
    """Say of every path but the open ones that it needs a key, which may be limited."""
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, operations in document["paths"].items():
        if path in OPEN_PATHS:
            continue
        for operation in operations.values():
            operation["security"] = [{"key": []}]
            responses = operation["responses"]
            responses |= {"401": _error(401), "429": _error(429, limited=True)}
            for response in responses.values():
                response["headers"] = {**response["headers"], **_LIMIT_HEADERS}
            challenge = {"required": True, "schema": {"type": "string"}, "description": "Bearer."}
            responses["401"]["headers"] = {**_HEADERS, "WWW-Authenticate": challenge}


def _embeddings(settings: RouterSettings) -> dict[str, Any]:
    content = {**_json("EmbeddingReply"), NPY: {"schema": {"type": "string", "format": "binary"}}}
    return {
        "summary": "Embed texts and images",
        "description": f"At most {settings.max_items} inputs a request and {settings.max_image_bytes} bytes "
        f"an image; {settings.max_pdf_pages} pages and {settings.max_pdf_bytes} bytes a PDF, of which each "
        f"page gives a vector. {_fetching(settings)} The vectors come in the order of the inputs; with "
        f"`Accept: {NPY}` as one matrix.",
        "parameters": _work_headers(settings),
        "requestBody": {"required": True, "content": _json("EmbeddingRequest")},
        "responses": {
            "200": {
                "description": "The vectors",
                "headers": {**_HEADERS, **_EMBEDDING_HEADERS},
                "content": content,
            },
            **{str(status): _error(status) for status in _FOR_WORK},
        },
    }


def _rerank(settings: RouterSettings) -> dict[str, Any]:
    return {
        "summary": "Rank documents by how well they answer a query",
        "description": f"At most {settings.max_items} documents. By late interaction: the mean over the "
        "query's tokens of their best match among the document's, from -1 to 1. Where a cross-encoder is "
        "configured, by its score. A document that is too long is cut.",
        "parameters": _work_headers(settings),
        "requestBody": {"required": True, "content": _json("RerankRequest")},
        "responses": {
            "200": {
                "description": "Best first",
                "headers": {**_HEADERS, **_SPACE_HEADER},
                "content": _json("RerankReply"),
            },
            **{str(status): _error(status) for status in _FOR_WORK},
        },
    }


def _work_headers(settings: RouterSettings) -> list[dict[str, Any]]:
    return [
        {
            "name": "x-priority",
            "in": "header",
            "schema": {"type": "string", "enum": ["interactive", "bulk"]},
            "description": "Bulk lets interactive requests go first. When left out: bulk for large "
            "requests to embed what is no query.",
        },
        {
            "name": "x-request-timeout-seconds",
            "in": "header",
            "schema": {"type": "number", "exclusiveMinimum": 0, "maximum": 3600},
            "description": f"{settings.request_timeout_seconds:g} when left out.",
        },
        {
            "name": "x-require-vector-space",
            "in": "header",
            "schema": {"type": "string", "pattern": SPACES_PATTERN},
            "description": "Vector spaces that the client takes, separated by commas, as a reply's "
            "`x-vector-space` names them; any when left out.",
        },
        {
            "name": "X-Request-Id",
            "in": "header",
            "schema": {"type": "string"},
            "description": "32 hexadecimal digits; anything else is replaced.",
        },
    ]


def _fetching(settings: RouterSettings) -> str:
    whence = "from public addresses" if settings.media_fetch else "from no address"
    return f"Images and PDFs are fetched {whence}."


def _get(summary: str, schema: str, *errors: int) -> dict[str, Any]:
    return {
        "summary": summary,
        "responses": {
            "200": {"description": summary, "headers": _HEADERS, "content": _json(schema)},
            **{str(status): _error(status) for status in errors},
        },
    }


def _ready() -> dict[str, Any]:
    operation = _get("Whether every pool has a ready replica, or may be without one", "Readiness")
    operation["responses"]["503"] = {
        "description": "A pool has none that it should have",
        "headers": _HEADERS,
        "content": _json("Readiness"),
    }
    return operation


def _metrics() -> dict[str, Any]:
    operation = _get("What Prometheus reads", "Status")
    operation["responses"]["200"]["content"] = {"text/plain": {"schema": {"type": "string"}}}
    return operation


def _targets() -> dict[str, Any]:
    operation = _get("The workers that this router knows, for Prometheus to find", "Targets")
    schema = {"type": "array", "items": _json("Targets")["application/json"]["schema"]}
    operation["responses"]["200"]["content"] = {"application/json": {"schema": schema}}
    return operation


def _error(status: int, *, limited: bool = False) -> dict[str, Any]:
    kinds = [
        (kind, code)
        for kind, (its_status, code) in TABLE.items()
        if its_status == status and (limited or not issubclass(kind, RateExceeded))
    ]
    return {
        "description": "; ".join(f"`{code}`: {_sentence(kind)}" for kind, code in kinds),
        "headers": _HEADERS,
        "content": _json("Error"),
    }


def _sentence(kind: type[Exception]) -> str:
    return "fields that break the schema" if kind is Invalid else (kind.__doc__ or "").rstrip(".").lower()


def _json(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
