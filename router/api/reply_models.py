"""The bodies and headers of replies as models, for the OpenAPI document only: nothing is validated."""

from typing import Any, Literal

from pydantic import BaseModel, Field, RootModel

from triptych.workers.shared.contract import PoolName
from triptych.workers.shared.families import V4

Spaces = dict[str, list[str]]
_SPACES = "Vector spaces by pool: one for each, or two during an upgrade."


class Usage(BaseModel):
    """Tokens that the model read, prefixes included."""

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
    tokenized_input: list[str] | None = Field(None, description="Only with return_tokenized_input.")


class EmbeddingReply(BaseModel):
    """One entry for each input, in order."""

    model: str = Field(examples=[V4.name])
    object: Literal["list"]
    usage: Usage
    data: list[Embedding | MultiEmbedding]


class Document(BaseModel):
    """A document as it was sent."""

    text: str | None = None
    image: str | None = None


class Ranking(BaseModel):
    """The score of one document; `index` is its position in the request."""

    index: int
    relevance_score: float
    document: Document | None = Field(None, description="Left out if return_documents is false.")


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
    input: Any = Field(description="The value that was sent, shortened if it is long.")


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
    errors: list[FieldFault] | None = Field(None, description="Only with 422: each wrong field.")


class ModelEntry(BaseModel):
    """A served model. `dimensions` and `max_tokens` are null while no worker is ready.

    A reranker has no tasks and no dimensions.
    """

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    tasks: list[str]
    dimensions: int | None
    matryoshka_dimensions: list[int] = Field(description="Shorter lengths that the model was trained for.")
    max_tokens: int | None
    vector_spaces: Spaces = Field(description=_SPACES)


class ModelList(BaseModel):
    """The served models."""

    object: Literal["list"]
    data: list[ModelEntry]


class Status(BaseModel):
    """Whether the process is alive, or takes requests."""

    status: Literal["ok", "not ready"]


class Readiness(BaseModel):
    """For each pool `ready`, or why it is not. `reason` is why the whole router is not ready, else null."""

    ready: bool
    reason: str | None
    pools: dict[str, str]
    vector_spaces: Spaces = Field(description=_SPACES)


class TargetLabels(BaseModel):
    """Labels of all workers of a group."""

    task: PoolName
    version: str | None = Field(None, description="A pool with two versions is being upgraded.")


class Targets(BaseModel):
    """The workers of one pool."""

    targets: list[str] = Field(examples=[["127.0.0.1:8101"]])
    labels: TargetLabels


class TargetList(RootModel[list[Targets]]):
    """The workers, in Prometheus' `http_sd` format."""


def header(kind: str, description: str, *, always: bool = False, **schema: Any) -> dict[str, Any]:
    """A header whose value is of `kind`, in OpenAPI's form; `always` sent, or sometimes."""
    described = {"schema": {**schema, "type": kind}, "description": description}
    return described | ({"required": True} if always else {})


# Of every reply.
COMMON_HEADERS = {
    "X-Request-Id": header("string", "The id that was sent, or a new one.", always=True),
    "x-total-time": header("number", "Milliseconds from the request's head to the reply.", always=True),
    "x-queue-time": header("number", "Milliseconds until a worker had the last input.", always=True),
    "x-inference-time": header(
        "number", "Milliseconds from then until the last vector had arrived.", always=True
    ),
    "x-router-overhead": header("number", "Milliseconds that are neither of these.", always=True),
}
# Of replies that hold results, and of those with embeddings.
SPACE_HEADERS = {
    "x-vector-space": header(
        "string", "The vector space of each pool's results: `pool=space`, separated by commas.", always=True
    ),
}
EMBEDDING_HEADERS = SPACE_HEADERS | {
    "x-truncated-inputs": header(
        "string", "Indexes of the inputs that `truncate` shortened, separated by commas."
    ),
    "x-usage-total-tokens": header("integer", "Only with a matrix: tokens read."),
    "x-usage-prompt-tokens": header("integer", "Only with a matrix: tokens read."),
}
# Of replies to requests without a valid key, and to keys with limits.
CHALLENGE_HEADERS = {"WWW-Authenticate": header("string", "Bearer.", always=True)}
LIMIT_HEADERS = {
    "X-RateLimit-Limit-Requests": header("integer", "Requests per minute, if the key has a limit."),
    "X-RateLimit-Remaining-Requests": header("integer", "Requests left now."),
    "X-RateLimit-Reset-Requests": header("string", "Time until all are available, such as 6m0s."),
    "X-RateLimit-Limit-Tokens": header("integer", "Tokens per minute, if the key has a limit."),
    "X-RateLimit-Remaining-Tokens": header("integer", "Tokens left now."),
    "X-RateLimit-Reset-Tokens": header("string", "Time until all are available, such as 6m0s."),
}
