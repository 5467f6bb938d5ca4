"""What a benchmark is, and what it is given."""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple

from loadtests.bench.measure import Scale
from loadtests.bench.results import Row
from loadtests.bench.servers import Engine, Servers


class Setup(NamedTuple):
    """The engines that are running, and how much to measure."""

    servers: Servers
    scale: Scale


class Section(NamedTuple):
    """One benchmark: the engines that must be running, and what measures. `quick`: part of a quick run."""

    title: str
    engines: Sequence[Engine]
    run: Callable[[Setup], Coroutine[Any, Any, list[Row]]]
    quick: bool = True
