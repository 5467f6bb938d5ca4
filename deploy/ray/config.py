"""The configuration of a deployment on a Ray cluster, read from a YAML file."""

import os
from pathlib import Path
from typing import Annotated, Any, Self

import click
import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from triptych.router.settings import RouterSettings
from triptych.workers.settings import WorkerSettings
from triptych.workers.shared import families
from triptych.workers.shared.contract import PoolName
from triptych.workers.shared.strict_settings import StrictSettings

# No environment variable begins with this: the settings of other processes are not read from ours.
NO_PREFIX = "="
# Settings that the deployment sets itself, each with what to write instead, if anything.
TOKEN = "WORKER_TOKEN in the environment of the nodes"
WORKER_OWN: dict[str, str | None] = {
    "model": "model",
    "task": "the pool's name",
    "host": None,
    "port": "worker_ports",
    "token": TOKEN,
    "tensor_parallel": "tensor_parallel",
}
ROUTER_OWN: dict[str, str | None] = {
    "workers": None,
    "discovery": None,
    "discovery_token": None,
    "discovery_seconds": None,
    "host": "host",
    "port": "port",
    "hold_seconds": "hold_seconds",
    "worker_token": TOKEN,
}


class ConfigError(click.ClickException):
    """The configuration is not valid; the text has one line for each fault, with the field's name."""

    exit_code = os.EX_CONFIG


def _without_settings(env: dict[str, str]) -> dict[str, str]:
    """`env`, unless it holds a setting: it would not be checked here, or be overridden."""
    for name in env:
        # The names of settings are case-insensitive.
        if name.upper().startswith(("WORKER_", "ROUTER_")):
            raise ValueError(
                f"{name} is a setting; write it under `worker` of a pool or `settings` of routers"
            )
    return env


Environment = Annotated[dict[str, str], AfterValidator(_without_settings)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Autoscaling(_Strict):
    """Replicas by load: the tokens that arrive and wait in all routers. See `pressure.py`."""

    min: int = Field(1, ge=0, description="Fewest replicas; at 0 the routers hold the first requests.")
    max: int = Field(ge=1, description="Most replicas.")
    tokens_per_second: float = Field(
        gt=0, description="Tokens per second of one replica at full load, measured on its GPU."
    )
    utilization: float = Field(0.7, gt=0, le=1, description="Part of that rate to plan with.")
    backlog_seconds: float = Field(30, gt=0, description="Time in which the waiting tokens are to be done.")
    up_seconds: float = Field(
        10, ge=0, description="How long the load has to be higher before replicas start."
    )
    down_seconds: float = Field(
        300, ge=0, description="How long the load has to be lower before replicas stop."
    )
    to_zero_seconds: float = Field(600, ge=0, description="The same, from one replica to zero.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) is over max ({self.max})")
        return self


# With the discriminator an error names only one of the two forms.
Replicas = Annotated[
    Annotated[int, Field(ge=1), Tag("number")] | Annotated[Autoscaling, Tag("range")],
    Discriminator(lambda value: "range" if isinstance(value, (dict, Autoscaling)) else "number"),
]


class Pool(_Strict):
    """One pool: its variant, its number of replicas, and what each takes of a node."""

    model: str = Field(description="Folder of the variant, the same on every node, or a Hugging Face id.")
    replicas: Replicas = Field(1, description="A number, or `{min, max, ...}` to scale by load.")
    gpus: float = Field(
        0,
        ge=0,
        description="GPUs of a replica: 0.3 shares one GPU with others, by as much of its memory. With "
        "tensor_parallel as many as that.",
    )
    cpus: float = Field(1, gt=0, description="CPU cores of a replica.")
    memory_gib: float = Field(0, ge=0, description="Main memory that a replica reserves; 0: not counted.")
    tensor_parallel: int = Field(1, ge=1, description="GPUs that share one engine, on one node.")
    resources: dict[str, float] = Field({}, description="Custom Ray resources of a replica, to pin it.")
    labels: dict[str, str] = Field({}, description="Ray labels that a replica's node must have.")
    replicas_per_node: int | None = Field(
        None, ge=1, description="Most replicas on one node, to spread them."
    )
    surge_percent: int = Field(
        25,
        ge=0,
        le=100,
        description="Replicas that an upgrade may start in addition, in percent of the number, rounded up. "
        "With 0 it stops an old one first: use it where there is no room for one more.",
    )
    start_seconds: float = Field(1800, gt=0, description="Longest time that a replica may take to start.")
    worker: dict[str, Any] = Field({}, description="Worker settings without `WORKER_`: {batch_tokens: 8192}.")
    env: Environment = Field({}, description="Further environment variables of the worker.")

    @model_validator(mode="after")
    def _gpus_fit(self) -> Self:
        if self.tensor_parallel > 1 and self.gpus not in (0, self.tensor_parallel):
            raise ValueError(
                f"gpus ({self.gpus:g}) must be tensor_parallel ({self.tensor_parallel}) or left out"
            )
        if self.gpus > 1 and self.tensor_parallel == 1:
            raise ValueError(
                f"gpus is {self.gpus:g}, but an engine uses one GPU unless tensor_parallel says more"
            )
        return self

    def engine(self, name: PoolName) -> WorkerSettings:
        """The settings of its workers, as the pool `name`."""
        given = {"model": self.model, "task": name, "tensor_parallel": self.tensor_parallel, **self.worker}
        return WorkerSettings(_env_prefix=NO_PREFIX, **given)

    @property
    def gpus_each(self) -> float:
        return float(self.tensor_parallel) if self.tensor_parallel > 1 else self.gpus

    @property
    def most(self) -> int:
        """The largest number of replicas."""
        return self.replicas if isinstance(self.replicas, int) else self.replicas.max

    @property
    def fewest(self) -> int:
        """The smallest number of replicas."""
        return self.replicas if isinstance(self.replicas, int) else self.replicas.min

    @property
    def surge(self) -> int:
        """The additional replicas of an upgrade while the pool has its smallest number."""
        return -(-self.surge_percent * self.fewest // 100)


class Routers(_Strict):
    """The routers, each on the public port of its node."""

    count: int | None = Field(None, ge=1, description="How many, on different nodes. Default: one per node.")
    host: str | None = Field(
        None, description="Address to listen on. Default: the node's address in the cluster; 0.0.0.0: all."
    )
    port: int = Field(8080, ge=1, le=65535, description="Port to listen on, the same on every node.")
    cpus: float = Field(0, ge=0, description="CPU cores that a router reserves.")
    labels: dict[str, str] = Field({}, description="Ray labels that a router's node must have.")
    hold_seconds: float = Field(
        120, ge=0, description="How long a request may wait for a pool without replicas before it gets 503."
    )
    settings: dict[str, Any] = Field({}, description="Router settings without `ROUTER_`: {lanes: 2}.")
    env: Environment = Field({}, description="Further environment variables of the router.")

    @field_validator("settings")
    @classmethod
    def _router_settings(cls, settings: dict[str, Any]) -> dict[str, Any]:
        return _settings_of(RouterSettings, settings, ROUTER_OWN, discovery="unused")

    @property
    def drain_seconds(self) -> float:
        """Seconds after SIGTERM in which a router still accepts requests or finishes them."""
        fields = RouterSettings.model_fields
        times = ("drain_notice_seconds", "drain_seconds")
        return sum(float(self.settings.get(name, fields[name].default)) for name in times)


class ClusterConfig(_Strict):
    """A deployment: its pools and its routers."""

    name: str = Field("triptych", pattern=r"^[a-z][a-z0-9-]*$", description="Prefix of the names in Ray.")
    pools: dict[families.Pool, Pool] = Field(min_length=1)
    routers: Routers = Routers()
    worker_ports: str = Field(
        "8101-8199",
        pattern=r"^\d+(-\d+)?$",
        description="Ports that workers may listen on, for a firewall between the nodes.",
    )

    @model_validator(mode="after")
    def _ports_and_engines_are_valid(self) -> Self:
        if not self.port_range or self.port_range[0] < 1 or self.port_range[-1] > 65535:
            raise ValueError(f"worker_ports: {self.worker_ports} is not a range, such as 8101-8199")
        for name, pool in self.pools.items():
            try:
                _settings_of(WorkerSettings, pool.worker, WORKER_OWN, model="unused", task=name)
            except ValueError as error:
                raise ValueError(f"pools.{name}.worker: {error}") from None
        return self

    @property
    def port_range(self) -> range:
        first, _, last = self.worker_ports.partition("-")
        return range(int(first), int(last or first) + 1)


def read_config(path: Path) -> ClusterConfig:
    """The configuration in a YAML file. Raises `ConfigError`."""
    try:
        data = yaml.safe_load(path.read_bytes())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {error}") from None
    return parse_config(data, str(path))


def parse_config(data: Any, source: str = "config") -> ClusterConfig:
    """The configuration in a parsed document. Raises `ConfigError`."""
    try:
        return ClusterConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{source}: {fault}" for fault in faults_of(error))) from None


def _settings_of(
    kind: type[StrictSettings], given: dict[str, Any], own: dict[str, str | None], **needed: Any
) -> dict[str, Any]:
    """`given`, if they are valid settings. Refuses those that the deployment sets itself."""
    for name in given:
        if name in own:
            instead = f"; write {own[name]} instead" if own[name] else ""
            raise ValueError(f"{name} is set by the deployment itself{instead}")
    try:
        kind(_env_prefix=NO_PREFIX, **(needed | given))
    except ValidationError as error:
        raise ValueError("; ".join(faults_of(error))) from None
    return given


def faults_of(error: ValidationError) -> list[str]:
    """Each fault, after the name of the field if only one is at fault."""
    found = []
    for fault in error.errors():
        field, what = ".".join(map(str, fault["loc"])), fault["msg"].removeprefix("Value error, ")
        found.append(f"{field}: {what}" if field else what)
    return found
