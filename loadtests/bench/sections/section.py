"""A benchmark and its input."""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple

from loadtests.bench.measure import Scale
from loadtests.bench.rows import Row
from loadtests.bench.servers import Engine, Servers


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
