"""The router's settings."""

from functools import cached_property
from pathlib import Path
from typing import Self

from pydantic import Field, IPvAnyNetwork, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from triptych.router.access.keys import Keys
from triptych.router.api.aliases import OLD_MODELS, Alias, Aliases
from triptych.router.api.cors import Origins
from triptych.router.pool.targets import TargetGroups, is_url
from triptych.workers.shared.logs import LogFormat
from triptych.workers.shared.strict_settings import StrictSettings, Token


class RouterSettings(StrictSettings):
    """The router's settings, each `ROUTER_<NAME>` in the environment."""

    model_config = SettingsConfigDict(env_prefix="ROUTER_")

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on.")
    processes: int = Field(
        1,
        ge=1,
        description="Router processes that serve the port together. Each has queues and lanes of its own, so "
        "a replica may be given ROUTER_LANES batches by each of them: lower it when there are many.",
    )
    workers: TargetGroups = Field(
        (),
        validate_default=False,
        description="The workers, as a Prometheus http_sd document: "
        '[{"targets": ["127.0.0.1:8101"], "labels": {"task": "retrieval"}}]. '
        "The label `task` is the pool: retrieval, text-matching, code, or one of another model, such as "
        "v3.base. This or ROUTER_DISCOVERY is required.",
    )
    discovery: str | None = Field(
        None,
        description="Instead of ROUTER_WORKERS: a file with such a document, or an http(s) address that "
        "serves it. If it is broken or unreachable, the last good workers stay. A group without targets is a "
        'pool without workers. A pool with the label `min_replicas` "0" counts as ready without workers, if '
        "ROUTER_HOLD_SECONDS is set. The label `srv` is a DNS name whose SRV records list the group's "
        "workers.",
    )
    discovery_seconds: float = Field(
        5.0, gt=0, description="Time between two reads of ROUTER_DISCOVERY, and of its SRV records."
    )
    discovery_token: SecretStr | None = Field(
        None, description="Bearer token for the http(s) address in ROUTER_DISCOVERY."
    )
    worker_token: Token | None = Field(None, description="The workers' WORKER_TOKEN.")
    api_keys: Keys = Field(
        (),
        description="API keys; every request must send one, except /health, /live and the page at /. Only "
        'their hashes: [{"name": "alice", "sha256": "<64 hexadecimal digits>", "requests_per_minute": 600, '
        '"tokens_per_minute": 1000000}], as `triptych keys alice` prints them; the limits are '
        "optional, and a hash alone is accepted.",
    )
    api_keys_file: Path | None = Field(
        None,
        description="File with further keys, in the same form. It is read again when it changes; if it is "
        "invalid, the keys stay. With a file, even an empty list of keys closes the router.",
    )
    limits_file: Path | None = Field(
        None,
        description="File in which several routers on this machine share what each key has used, such as "
        "/dev/shm/triptych-limits; created if missing. A single process does not need it.",
    )
    cors_origins: Origins = Field(
        (),
        description="Origins whose web pages may call the API from a browser: "
        '["https://app.example.org"], or ["*"] for all. None by default.',
    )
    log_level: str = Field(
        "info", pattern="^(debug|info|warning|error)$", description="debug, info, warning or error."
    )
    log_format: LogFormat = Field("plain", description="plain, or json for one JSON object a line.")
    page: bool = Field(
        True, description="Serve a page at `/` that shows the pools and a playground for the API."
    )
    model_aliases: dict[str, Alias] = Field(
        default_factory=dict,
        description="Other names for models: "
        '{"my-model": {"model": "jina-embeddings-v4", "task": "retrieval.passage", "dimensions": 512, '
        '"tasks": {"search": "retrieval.query"}}}. All four are optional: the model (jina-embeddings-v4), '
        "the task and dimensions of requests that name none, and other names for tasks. A deployed model "
        "goes before an alias of the same name.",
    )
    old_model_names: bool = Field(
        False,
        description="Accept the names of v2 and v3 models as aliases of jina-embeddings-v4, with the number "
        "of values that their clients expect: 1024 for v3, 768 for v2-base, 512 for v2-small. The vectors "
        "are those of v4, so they cannot be compared with stored ones of the old models.",
    )
    max_items: int = Field(512, ge=1, description="Most inputs in a request.")
    max_body_bytes: int = Field(64 << 20, ge=1024, description="Largest request body, in bytes.")
    memory_bytes: int | None = Field(
        None,
        ge=1 << 20,
        description="Most memory, estimated, that the requests of one router process hold together: bodies, "
        "media, waiting items, replies; past it 429. By default a quarter of the machine's or container's "
        "memory, divided by ROUTER_PROCESSES, and at least 256 MiB.",
    )
    max_connections: int = Field(
        10_000,
        ge=1,
        description="Most open connections of one router process; more are closed at once with a 503. A "
        "tenth of the process's file descriptors stays free for other uses, whatever this says.",
    )
    max_connections_per_client: int = Field(
        5_000,
        ge=1,
        description="Most open connections from one address to one router process. A load balancer in front "
        "is one address.",
    )
    min_bytes_per_second: int = Field(
        1_000,
        ge=0,
        description="Connections on which a body or a reply moves slower than this, on average over 20 "
        "seconds, are closed. 0 keeps them.",
    )
    max_image_bytes: int = Field(
        8 << 20, ge=1024, description="Largest image, in bytes of its file (base64 decoded)."
    )
    max_pdf_bytes: int = Field(8 << 20, ge=1024, description="Largest PDF, in bytes of its file.")
    max_pdf_pages: int = Field(100, ge=1, description="Most pages of a PDF; each becomes an image.")
    pdf_processes: int = Field(
        3,
        ge=1,
        description="PDFs that a router process renders at a time, each in its own process. With API keys, "
        "one key uses all but one of them.",
    )
    pdf_timeout_seconds: float = Field(
        30.0, gt=0, description="Timeout of rendering one PDF, all its pages. A page has 10 seconds."
    )
    media_fetch: bool = Field(
        True, description="Fetch images and PDFs from http(s) addresses that clients send."
    )
    media_timeout_seconds: float = Field(
        10.0, gt=0, description="Timeout of fetching one image or PDF, redirects included."
    )
    media_allowed_networks: tuple[IPvAnyNetwork, ...] = Field(
        (),
        description='Networks that media may be fetched from besides public addresses: ["10.1.0.0/16"]. '
        "Clients can then reach every port there.",
    )
    trust_traceparent: bool = Field(
        False,
        description="Trace the requests whose `traceparent` says sampled. Otherwise only OTEL_TRACES_SAMPLER "
        "decides, and clients cannot force traces. Their trace ids are used either way.",
    )
    request_timeout_seconds: float = Field(
        60.0,
        gt=0,
        description="Timeout of a request, unless it sends x-request-timeout-seconds.",
    )
    max_request_timeout_seconds: float = Field(
        3600.0, gt=0, description="Longest timeout that a request may ask for."
    )
    keep_alive_seconds: int = Field(
        75,
        ge=1,
        description="Idle connections are closed after this time. It must be longer than the idle timeout of "
        "a load balancer in front, or that may send a request on a connection that is being closed.",
    )
    lanes: int = Field(4, ge=1, description="Batches that each router process sends to a replica at a time.")
    batch_tokens: int = Field(4096, ge=1, description="Most tokens (estimated) of a batch.")
    batch_items: int = Field(256, ge=1, description="Most items of a batch.")
    queue_tokens: int = Field(
        1_000_000,
        ge=1,
        description="Most tokens (estimated) that may wait for one pool in one router process; past it 429.",
    )
    queue_items: int = Field(
        20_000, ge=1, description="Most items that may wait for one pool in one router process; past it 429."
    )
    hold_seconds: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="Longest time that requests are held for a pool without a replica, within its queue and "
        "the request's timeout; then 503. 0 refuses them at once.",
    )
    worker_timeout_seconds: float = Field(
        30.0,
        gt=0,
        description="Longest silence of a worker that has a batch; past it the batch is tried again.",
    )
    probe_seconds: float = Field(3.0, gt=0, description="Time between two probes of a replica that is up.")
    drain_notice_seconds: float = Field(
        0.0,
        ge=0,
        description="Time after SIGTERM in which requests are still accepted, while /ready is 503 and each "
        "reply closes its connection, so that load balancers and clients go elsewhere. Idle connections are "
        "closed at its end.",
    )
    drain_seconds: int = Field(30, ge=0, description="Longest wait after that for accepted requests.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if bool(self.workers) == bool(self.discovery):
            raise ValueError(
                "ROUTER_WORKERS, ROUTER_DISCOVERY: set exactly one of the two; it names the workers"
            )
        if self.discovery_token and not (self.discovery and is_url(self.discovery)):
            raise ValueError("ROUTER_DISCOVERY_TOKEN is for an http(s) address in ROUTER_DISCOVERY")
        if self.queue_items < max(self.max_items, self.max_pdf_pages):
            raise ValueError(
                f"ROUTER_QUEUE_ITEMS ({self.queue_items}) must be at least ROUTER_MAX_ITEMS "
                f"({self.max_items}) and ROUTER_MAX_PDF_PAGES ({self.max_pdf_pages}), or the largest request "
                "could never be admitted"
            )
        return self

    @cached_property
    def aliases(self) -> Aliases:
        """The operator's aliases, and the names of old models if they are accepted."""
        return {**(OLD_MODELS if self.old_model_names else {}), **self.model_aliases}

    @property
    def guarded(self) -> bool:
        """Whether requests need an API key."""
        return bool(self.api_keys) or self.api_keys_file is not None
