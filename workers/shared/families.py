"""Model families: everything that router and workers must know about a model, as data. No torch.

A family is one published model: a base and, for most, a LoRA adapter for each task. Each adapter has a pool,
`<key>.<adapter>`, whose workers serve it merged into the base. The key of jina-embeddings-v4 is empty, so its
pools are the adapters. Workers of the pool `<key>.shared` hold base and adapters in one engine, and serve all
pools that have no workers of their own.
To add a model, add an entry here and a checkpoint layout in `triptych.workers.checkpoints`; nothing else may
ask which family it serves.

Sources:
- v4: its `modeling_jina_embeddings_v4.py`. It encodes text-matching as queries.
- v3: prompts of `config_sentence_transformers.json`, order of adapters in `config.json`; arXiv 2409.10173.
  The hosted API uses the base alone if a request has no task (jina-ai/jina-on-prem,
  `server/families/embedding.py`).
- v5: model card, vLLM's `model_executor/models/jina.py`, arXiv 2602.15547. Tasks, context and Matryoshka
  sizes: jina-ai/jina-on-prem, `models/catalog.json` (nano: 8,192 tokens, although the announcement says
  32,768). `Document: ` is the prefix unless the prompt name is `query`, for every task, and the hosted API
  takes text-matching by default (the same repository, `server/tasks.py`). No late chunking
  (https://jina.ai/models/jina-embeddings-v5-text-small).
- rerankers: the same `models/catalog.json`. jina-reranker-v2 reads a longer document in windows. For
  jina-reranker-m0, `modeling.py` of its repository; keys and values of a token: config of Qwen2-VL-2B.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator

from triptych.workers.shared.contract import Role


class Route(NamedTuple):
    """The adapter that encodes a task, and the role that chooses the prefix."""

    adapter: str
    role: Role


@dataclass(frozen=True, eq=False)
class Family:
    """One model.

    `tasks` are those of the API, `other_tasks` are further names for them. `default` is the route of a
    request without a task, None for a model that only ranks. `prefixes` go before a text, by role.
    `dimensions` is the length of an uncut vector, `matryoshka` are the shorter lengths that the model was
    trained for; `multivector` is the length of a token's vector, None without multi-vectors. `positions` is
    the longest input in tokens, `least_tokens` the smallest bound for it. `special_tokens`: the tokenizer's
    own post-processing applies (BOS, EOS). `causal`: attention only looks back, so that a prompt may be
    prefilled in chunks. `cache_bytes`: keys and values of one token in bfloat16; an encoder keeps none.

    `rerank` is the adapter that scores documents for `/v1/rerank`; a `cross_encoder` reads query and document
    together, other models compare multi-vectors. Its checkpoint is served as it is published. With `windows`
    it reads a document beyond `positions` in several windows, otherwise it cuts it. With `any_name` its pool
    may hold any cross-encoder, under any name. `shared`: one engine can hold all adapters. `architecture` is
    the model class that the vLLM plugin registers, None where vLLM's own is used.
    """

    key: str
    name: str
    dimensions: int
    positions: int
    layout: str
    least_tokens: int = 1024
    tasks: Mapping[str, Route] = field(default_factory=dict)
    default: Route | None = None
    other_tasks: Mapping[str, str] = field(default_factory=dict)
    prefixes: Mapping[Role, str] = field(default_factory=dict)
    matryoshka: tuple[int, ...] = ()
    multivector: int | None = None
    pooling: Literal["mean", "last"] = "mean"
    special_tokens: bool = False
    causal: bool = True
    cache_bytes: int = 0
    images: bool = False
    late_chunking: bool = False
    rerank: str | None = None
    cross_encoder: bool = False
    windows: bool = False
    any_name: bool = False
    shared: bool = False
    architecture: str | None = None

    @property
    def names(self) -> tuple[str, str]:
        """The names that requests may send, the canonical one first."""
        return self.name, f"jinaai/{self.name}"

    @cached_property
    def adapters(self) -> tuple[str, ...]:
        """The adapters, the base alone included; one pool each."""
        names = [route.adapter for route in (*self.tasks.values(), self.default) if route]
        return tuple(dict.fromkeys([*names, *([] if self.rerank is None else [self.rerank])]))

    @cached_property
    def pools(self) -> tuple[str, ...]:
        """The pools of `adapters`, in the same order."""
        return tuple(map(self.pool, self.adapters))

    @property
    def shared_pool(self) -> str | None:
        """The pool whose workers hold all adapters; None if no engine can."""
        return self.pool("shared") if self.shared else None

    @cached_property
    def worker_pools(self) -> tuple[str, ...]:
        """The pools that workers may have: `pools`, and `shared_pool` if there is one."""
        return self.pools if self.shared_pool is None else (*self.pools, self.shared_pool)

    @cached_property
    def routes(self) -> Mapping[str | None, tuple[str, Role]]:
        """Pool and role of each task; of None for a request without a task."""
        routes: list[tuple[str | None, Route | None]] = [*self.tasks.items(), (None, self.default)]
        return {task: (self.pool(route.adapter), route.role) for task, route in routes if route}

    @property
    def default_task(self) -> str | None:
        """The task of a request without one; None if the base alone serves it, or nothing does."""
        return next((task for task, route in self.tasks.items() if route == self.default), None)

    def pool(self, adapter: str) -> str:
        """The name of an adapter's pool."""
        return ".".join(part for part in (self.key, adapter) if part)

    def adapter(self, pool: str) -> str:
        """The adapter of one of `pools`."""
        return self.adapters[self.pools.index(pool)]

    def adapters_of(self, pool: str) -> tuple[str, ...]:
        """The adapters that one of `worker_pools` serves."""
        return self.adapters if pool == self.shared_pool else (self.adapter(pool),)


V4 = Family(
    key="",
    name="jina-embeddings-v4",
    dimensions=2048,
    matryoshka=(128, 256, 512, 1024),
    multivector=128,
    positions=32_768,
    tasks={
        "text-matching": Route("text-matching", "query"),
        "retrieval.query": Route("retrieval", "query"),
        "retrieval.passage": Route("retrieval", "passage"),
        "code.query": Route("code", "query"),
        "code.passage": Route("code", "passage"),
    },
    default=Route("text-matching", "query"),
    prefixes={"query": "Query: ", "passage": "Passage: "},
    images=True,
    late_chunking=True,
    # 36 layers, 2 heads of 128 values (config of Qwen2.5-VL-3B).
    cache_bytes=36 * 2 * 2 * 128 * 2,
    rerank="retrieval",
    shared=True,
    layout="v4",
    architecture="TriptychEmbeddings",
)

_V5_TASKS = {
    "retrieval.query": Route("retrieval", "query"),
    "retrieval.passage": Route("retrieval", "passage"),
    "text-matching": Route("text-matching", "passage"),
    "classification": Route("classification", "passage"),
    "clustering": Route("clustering", "passage"),
}

V5_SMALL = Family(
    key="v5-small",
    name="jina-embeddings-v5-text-small",
    dimensions=1024,
    matryoshka=(32, 64, 128, 256, 512),
    positions=32_768,
    tasks=_V5_TASKS,
    other_tasks={"separation": "clustering"},
    default=_V5_TASKS["text-matching"],
    prefixes={"query": "Query: ", "passage": "Document: "},
    pooling="last",
    special_tokens=True,
    # 28 layers, 8 heads of 128 values (config of Qwen3-0.6B).
    cache_bytes=28 * 2 * 8 * 128 * 2,
    layout="v5",
    architecture="TriptychQwen3",
)

V5_NANO = replace(
    V5_SMALL,
    key="v5-nano",
    name="jina-embeddings-v5-text-nano",
    dimensions=768,
    positions=8192,
    causal=False,
    cache_bytes=0,
    architecture="TriptychEuroBert",
)

V3 = Family(
    key="v3",
    name="jina-embeddings-v3",
    dimensions=1024,
    matryoshka=(32, 64, 128, 256, 512, 768),
    positions=8192,
    # In the order of the stacked adapters.
    tasks={
        "retrieval.query": Route("retrieval-query", "query"),
        "retrieval.passage": Route("retrieval-passage", "passage"),
        "separation": Route("separation", "plain"),
        "classification": Route("classification", "plain"),
        "text-matching": Route("text-matching", "plain"),
    },
    other_tasks={"clustering": "separation"},
    default=Route("base", "plain"),
    prefixes={
        "query": "Represent the query for retrieving evidence documents: ",
        "passage": "Represent the document for retrieval: ",
        "plain": "",
    },
    special_tokens=True,
    causal=False,
    late_chunking=True,
    layout="v3",
    architecture="TriptychXlmRoberta",
)

RERANKER_V2 = Family(
    key="rerank",
    name="jina-reranker-v2-base-multilingual",
    dimensions=1,
    positions=1024,
    special_tokens=True,
    causal=False,
    rerank="",
    cross_encoder=True,
    windows=True,
    any_name=True,
    layout="cross-encoder",
)

RERANKER_M0 = Family(
    key="rerank-m0",
    name="jina-reranker-m0",
    dimensions=1,
    positions=10_240,
    # Room for two images.
    least_tokens=2048,
    pooling="last",
    images=True,
    # 28 layers, 2 heads of 128 values.
    cache_bytes=28 * 2 * 2 * 128 * 2,
    rerank="",
    cross_encoder=True,
    layout="m0",
    architecture="TriptychRanker",
)

FAMILIES = (V4, V5_SMALL, V5_NANO, V3, RERANKER_V2, RERANKER_M0)
"""All families; the first is the default where nothing else decides."""

BY_POOL: Mapping[str, Family] = {pool: family for family in FAMILIES for pool in family.worker_pools}
"""The family of each pool that workers may have."""

TASK_POOLS = tuple(pool for family in FAMILIES for pool in family.pools)
"""The pools that tasks name, one for each adapter."""

BY_NAME: Mapping[str, Family] = {name: family for family in FAMILIES for name in family.names}
"""The family of each model name."""


def _registered(pool: str) -> str:
    if pool not in BY_POOL:
        raise ValueError(f"no pool {pool[:100]!r}; the pools are {', '.join(map(repr, BY_POOL))}")
    return pool


Pool = Annotated[str, AfterValidator(_registered)]
"""The name of a pool in a document or setting; it must be registered."""
