"""The benchmarks. Each adds rows and figures to its result as soon as it has them."""

from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from triptych.loadtests.bench.measure import SETTLE_SECONDS, TOLERANCE, Result
from triptych.loadtests.bench.servers import Servers, SizeName


class Scale(NamedTuple):
    """The number of measured rounds, and about how long each takes.

    `settle_seconds` and `tolerance`: see `interleaved`.
    """

    rounds: int
    seconds: float
    quick: bool
    settle_seconds: float = SETTLE_SECONDS
    tolerance: float = TOLERANCE


class Bench(NamedTuple):
    """The servers, how much to measure, the model's size on a GPU, and what earlier sections found."""

    servers: Servers
    scale: Scale
    size: SizeName
    report: dict[str, Result]


class Section(NamedTuple):
    """One benchmark. `quick`: it is part of a quick run. `gpu`: of a run on a GPU."""

    title: str
    run: Callable[[Bench, Result], Coroutine[Any, Any, None]]
    quick: bool = True
    gpu: bool = False
