"""The benchmarks. Each adds rows and figures to its result as soon as it has them."""

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, NamedTuple

from triptych.loadtests.bench.measure import Bench, Result
from triptych.loadtests.bench.sections import (
    compared,
    emulated,
    everyone,
    growth,
    latency,
    on_gpu,
    overload,
    router_alone,
)
from triptych.workers.shared.contract import POOLS


class Section(NamedTuple):
    """One benchmark. `quick`: it is part of a quick run. `gpu`: of a run on a GPU."""

    title: str
    run: Callable[[Bench, Result], Coroutine[Any, Any, None]]
    quick: bool = True
    gpu: bool = False


_slow, _on_gpu = partial(Section, quick=False), partial(Section, gpu=True)
# Neighbours share engines.
SECTIONS = {
    "router": Section(
        "The router alone, against a worker that answers at once (2,048 dimensions)", router_alone.run
    ),
    "throughput": Section("Throughput, one pool, nano variant", compared.throughput),
    "encoder": _slow("Throughput, jina-embeddings-v5-text-nano, nano variant", compared.encoder),
    "latency": Section("Queries while bulk saturates the pool, nano variant", latency.run),
    "overload": Section("Overload: three times the capacity of an emulated card", overload.run),
    "growth": Section("Growth: CPU of the router by what may be many", growth.run),
    "emulated": Section("An emulated card of 90,000 tokens a second", emulated.run),
    "recipe-nano": _slow("Against the published recipe, nano variant", partial(compared.recipe, size="nano")),
    "everyone": _slow("Everyone side by side, nano variant", everyone.run),
    "recipe-tiny": Section(
        "Against the published recipe, tiny variant (2,048 dimensions)", partial(compared.recipe, size="tiny")
    ),
    "matmul": _on_gpu("What the card can do", on_gpu.matmul),
    "checkpoint": _on_gpu("Random checkpoint, written and merged for three tasks", on_gpu.checkpoint),
    "memory": _on_gpu("One engine: start, and memory by part", on_gpu.memory),
    "parity": _on_gpu("Vectors against the model's own code, same size", on_gpu.parity),
    "short": _on_gpu("Throughput of short texts, one engine", on_gpu.short),
    "queries": _on_gpu("Queries in time, one engine", on_gpu.queries),
    "stock": _on_gpu("Against stock vLLM on the same card", on_gpu.stock),
    "recipe": _on_gpu("Against the published recipe on the same card", on_gpu.recipe),
    "long": _on_gpu("Throughput of long texts, one engine", on_gpu.long),
    "media": _on_gpu("Images and multi-vectors, one engine", on_gpu.media),
    "fp8": _on_gpu("fp8", on_gpu.fp8),
    "three": _on_gpu(
        "Three engines on the card, three tasks mixed", partial(on_gpu.tasks_mixed, pools=POOLS)
    ),
    "shared": _on_gpu(
        "One engine for all tasks, three tasks mixed", partial(on_gpu.tasks_mixed, pools=("shared",))
    ),
    "fixture-float32": _on_gpu(
        "The published code's reference vectors, float32", partial(on_gpu.fixture, size="fixture-float32")
    ),
    "fixture-bfloat16": _on_gpu(
        "The published code's reference vectors, bfloat16", partial(on_gpu.fixture, size="fixture-bfloat16")
    ),
}
