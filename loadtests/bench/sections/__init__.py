"""The benchmarks. Each is a coroutine from a `Setup` to rows."""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple

from triptych.loadtests.bench.measure import SETTLE_SECONDS, TOLERANCE, Row
from triptych.loadtests.bench.servers import Engine, Servers


class Scale(NamedTuple):
    """The number of measured rounds, and about how long each takes.

    `settle_seconds` and `tolerance`: see `interleaved`.
    """

    rounds: int
    seconds: float
    quick: bool
    settle_seconds: float = SETTLE_SECONDS
    tolerance: float = TOLERANCE


FULL = Scale(rounds=5, seconds=1.5, quick=False)
QUICK = Scale(rounds=2, seconds=0.6, quick=True)


class Setup(NamedTuple):
    """The running engines, and how much to measure."""

    servers: Servers
    scale: Scale


class Section(NamedTuple):
    """One benchmark and the engines it needs. `quick`: it is part of a quick run."""

    title: str
    engines: Sequence[Engine]
    run: Callable[[Setup], Coroutine[Any, Any, list[Row]]]
    quick: bool = True
