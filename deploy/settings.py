"""The settings of a deployment: environment variables with the prefix `DEPLOY_`.

Routers and workers have settings of their own (`ROUTER_`, `WORKER_`), which a deployment hands on to them.
"""

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from triptych.workers.shared.contract import POOLS
from triptych.workers.shared.families import BY_POOL, Pool
from triptych.workers.shared.strict_settings import StrictSettings


def _split(value: Any) -> Any:
    """Parse `a,b` to ["a", "b"]. A value that is not text stays."""
    if not isinstance(value, str):
        return value
    return [part.strip() for part in value.split(",") if part.strip()]


def _pairs(value: Any, default: str = "") -> Any:
    """Parse `a=1,b` to {"a": "1", "b": default}. A value that is not text stays."""
    if not isinstance(value, str):
        return value
    pairs = {}
    for part in _split(value):
        name, equals, text = (word.strip() for word in part.partition("="))
        if name in pairs:
            raise ValueError(f"named twice: {name}")
        pairs[name] = text if equals else default
    return pairs


_counts = partial(_pairs, default="1")


def _default_pools(values: dict[str, Any]) -> dict[str, int]:
    return {"shared": 1} if values.get("engines") == "shared" else dict.fromkeys(POOLS, 1)


class DeploySettings(StrictSettings):
    """What runs on this machine: pools, workers, GPUs and where the checkpoints come from."""

    model_config = SettingsConfigDict(env_prefix="DEPLOY_")

    engines: Literal["merged", "shared"] = Field(
        "merged",
        description="merged: an engine for each pool, the fastest. shared: one engine holds all adapters of "
        "jina-embeddings-v4, in a third of the memory; the default of DEPLOY_POOLS is then `shared`.",
    )
    pools: Annotated[dict[Pool, int], NoDecode, BeforeValidator(_counts)] = Field(
        default_factory=_default_pools,
        description="The pools to serve and how many workers each has: `retrieval=2,code` is two workers "
        "for retrieval and one for code. Pools of other models than jina-embeddings-v4 begin with the "
        "model's key: `retrieval=2,v3.base`. The pool `shared` serves all tasks that have no pool of their "
        "own: `retrieval=2,shared`. Requests without a model get the model of the first pool. The pool "
        "rerank, of a cross-encoder, has to be named here and in DEPLOY_VARIANTS.",
    )
    gpus: Annotated[tuple[str, ...] | None, NoDecode, BeforeValidator(_split)] = Field(
        None,
        description="The NVIDIA GPUs to use, by index or UUID: `0,1`. Default: those in "
        "CUDA_VISIBLE_DEVICES, else all.",
    )
    model: str | None = Field(
        None,
        description="Checkpoint in the upstream layout, a folder or a Hugging Face id, merged here into one "
        "variant per pool; or `demo`, tiny random checkpoints. Default: jinaai/jina-embeddings-v4 on an "
        "NVIDIA GPU, otherwise `demo`.",
    )
    models: Annotated[dict[str, str], NoDecode, BeforeValidator(_pairs)] = Field(
        {},
        description="The same for other models, by the key of their pools: `v3=/models/v3,v5-small=demo`. "
        "Default: the published checkpoint on an NVIDIA GPU, otherwise `demo`.",
    )
    variants: Annotated[dict[Pool, str], NoDecode, BeforeValidator(_pairs)] = Field(
        {},
        description="Pools whose variant is ready, a folder or a Hugging Face id, so that nothing is merged "
        "for them: `retrieval=jinaai/jina-embeddings-v4-vllm-retrieval,code=/models/code`.",
    )
    state: Path = Field(Path(".triptych"), description="Folder for the checkpoints that are made here.")
    worker_port: int = Field(8101, ge=1, le=65535, description="Port of the first worker; the others follow.")
    stop_seconds: float = Field(
        40, gt=0, description="Seconds that the router, and then the workers, have to finish when stopped."
    )

    @model_validator(mode="after")
    def _check_pools(self) -> Self:
        if not self.pools or min(self.pools.values()) < 1:
            raise ValueError("DEPLOY_POOLS: name at least one pool, each with at least one worker")
        for pool in self.pools:
            family = BY_POOL[pool]
            if pool == family.shared_pool and set(family.pools) <= set(self.pools):
                raise ValueError(f"DEPLOY_POOLS: {pool} has no task left, since each has a pool of its own")
        shared = any(pool == BY_POOL[pool].shared_pool for pool in self.pools)
        if "engines" in self.model_fields_set and shared != (self.engines == "shared"):
            raise ValueError(
                f"DEPLOY_ENGINES is {self.engines}, but DEPLOY_POOLS names {', '.join(self.pools)}; "
                "take one of the two out"
            )
        for pool in set(self.pools) - set(self.variants):
            if BY_POOL[pool].any_name:
                raise ValueError(
                    f"DEPLOY_VARIANTS: name the cross-encoder, `{pool}=FOLDER` or a Hugging Face id"
                )
        # The empty key is that of DEPLOY_MODEL.
        if idle := set(self.models) - ({BY_POOL[pool].key for pool in self.pools} - {""}):
            raise ValueError(f"DEPLOY_MODELS names models that no pool serves: {', '.join(sorted(idle))}")
        if idle := set(self.variants) - set(self.pools):
            raise ValueError(f"DEPLOY_VARIANTS names pools that are not served: {', '.join(sorted(idle))}")
        if self.worker_port + sum(self.pools.values()) > 65536:
            raise ValueError("DEPLOY_WORKER_PORT: too high for that many workers")
        return self
