"""What an operator can set: changes when a setting comes or goes."""

from collections import Counter
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, IPvAnyNetwork, model_validator
from pydantic_settings import SettingsConfigDict

from router.schema import Task
from workers.contract import PoolName
from workers.strict_settings import StrictSettings


class Labels(BaseModel):
    """The labels of a target group; those that other readers use are left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    task: PoolName


class TargetGroup(BaseModel):
    """Replicas of one pool, in the form of Prometheus' `http_sd`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    targets: tuple[Annotated[str, Field(pattern=r"^[^/\s]+:\d{1,5}$")], ...]
    labels: Labels


def _distinct(groups: tuple[TargetGroup, ...]) -> tuple[TargetGroup, ...]:
    counts = Counter(target for group in groups for target in group.targets)
    if not counts:
        raise ValueError(
            "name at least one worker, such as "
            '[{"targets": ["127.0.0.1:8101"], "labels": {"task": "retrieval"}}]'
        )
    if twice := [target for target, count in counts.items() if count > 1]:
        raise ValueError(f"an address can serve one pool only, once; listed twice: {', '.join(twice)}")
    return groups


class RouterSettings(StrictSettings):
    """The router's settings, each `ROUTER_<NAME>` in the environment."""

    model_config = SettingsConfigDict(env_prefix="ROUTER_")

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on.")
    workers: Annotated[tuple[TargetGroup, ...], AfterValidator(_distinct)] = Field(
        description="The workers, as a Prometheus http_sd document: "
        '[{"targets": ["127.0.0.1:8101"], "labels": {"task": "retrieval"}}]. '
        "The label `task` is retrieval, text-matching or code.",
    )
    log_level: str = Field(
        "info", pattern="^(debug|info|warning|error)$", description="debug, info, warning or error."
    )
    model_aliases: dict[str, dict[str, Task]] = Field(
        default_factory=dict,
        description="Other names that clients may give to the model, each with its names of tasks: "
        '{"jina-embeddings-v3": {"classification": "text-matching"}}.',
    )
    max_items: int = Field(512, ge=1, description="Most inputs one request may have.")
    max_body_bytes: int = Field(64 << 20, ge=1024, description="Largest request body, in bytes.")
    max_image_bytes: int = Field(
        8 << 20, ge=1024, description="Largest image, in bytes of its file (base64 undone)."
    )
    max_pdf_bytes: int = Field(8 << 20, ge=1024, description="Largest PDF, in bytes of its file.")
    max_pdf_pages: int = Field(100, ge=1, description="Most pages of a PDF; each becomes an image.")
    pdf_processes: int = Field(
        2, ge=1, description="PDFs rendered at a time, each in a process of its own, started when needed."
    )
    media_fetch: bool = Field(
        True, description="Whether images and PDFs are fetched from http(s) addresses that clients send."
    )
    media_timeout_seconds: float = Field(
        10.0, gt=0, description="Time that fetching one image or PDF may take, redirects included."
    )
    media_allowed_networks: tuple[IPvAnyNetwork, ...] = Field(
        (),
        description='Networks that media may be fetched from besides public addresses: ["10.1.0.0/16"]. '
        "Whoever may send requests can then reach every port there.",
    )
    request_timeout_seconds: float = Field(
        60.0,
        gt=0,
        description="Time a request has, unless its x-request-timeout-seconds header says another.",
    )
    lanes: int = Field(4, ge=1, description="Batches that one replica is given at a time.")
    batch_tokens: int = Field(4096, ge=1, description="Most tokens (estimated) of a batch.")
    batch_items: int = Field(256, ge=1, description="Most items of a batch.")
    queue_tokens: int = Field(
        1_000_000, ge=1, description="Most tokens (estimated) that may wait for one pool; past it 429."
    )
    queue_items: int = Field(20_000, ge=1, description="Most items that may wait for one pool; past it 429.")
    worker_timeout_seconds: float = Field(
        30.0,
        gt=0,
        description="Longest silence of a worker that has a batch; past it the batch is tried again.",
    )
    probe_seconds: float = Field(3.0, gt=0, description="Time between two looks at a replica that is up.")
    drain_seconds: int = Field(
        30, ge=0, description="Longest wait, on SIGTERM, for the requests already accepted."
    )

    @model_validator(mode="after")
    def _queue_holds_a_request(self) -> Self:
        if self.queue_items < max(self.max_items, self.max_pdf_pages):
            raise ValueError(
                f"ROUTER_QUEUE_ITEMS ({self.queue_items}) must be at least ROUTER_MAX_ITEMS "
                f"({self.max_items}) and ROUTER_MAX_PDF_PAGES ({self.max_pdf_pages}), or the largest request "
                "could never be admitted"
            )
        return self
