"""Objectives that a run must meet, from a TOML file or a short text."""

import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, PositiveFloat, ValidationError, model_validator

from triptych.loadtests.toml_files import Strict

_UNITS = {"ms": ("_ms", 1.0), "s": ("_ms", 1e3), "%": ("_share", 0.01), "": ("", 1.0)}
"""What a unit in the short text adds to the field's name, and its factor."""


class Objective(Strict):
    """Bounds for one flow (default: all flows together) in some segments (default: each).

    Latencies (in milliseconds, since the request was due) and `failure_share` are upper bounds. `throughput`
    (answered per second) and `capacity` (requests per second) are lower bounds.
    """

    flow: str | None = None
    segments: tuple[str, ...] | None = None
    p50_ms: PositiveFloat | None = None
    p90_ms: PositiveFloat | None = None
    p99_ms: PositiveFloat | None = None
    p999_ms: PositiveFloat | None = None
    failure_share: Annotated[float, Field(ge=0, le=1)] | None = None
    throughput: PositiveFloat | None = None
    capacity: PositiveFloat | None = None

    @property
    def bounds(self) -> set[str]:
        """Names of the bounds that are set."""
        return self.model_dump(exclude_none=True).keys() - {"flow", "segments"}

    @property
    def who(self) -> str:
        """What a line about this objective starts with."""
        return f"flow {self.flow}: " if self.flow else ""

    @model_validator(mode="after")
    def _bounds_something(self) -> Self:
        if not self.bounds:
            raise ValueError(f"nothing is bounded; give at least one of {', '.join(BOUNDS)}")
        return self


BOUNDS = tuple(name for name in Objective.model_fields if name not in ("flow", "segments"))


class Objectives(Strict):
    """All must be met. Besides, no reply may be wrong."""

    rows = Objective
    objective: Annotated[tuple[Objective, ...], Field(min_length=1)]

    @property
    def of_rates(self) -> list[Objective]:
        """Those by which a single rate of a search can be judged."""
        return [objective for objective in self.objective if objective.bounds != {"capacity"}]


def read_objectives(given: str) -> Objectives:
    """Read a TOML file, or a short text such as "p99=250ms,failures=0.1%".

    The short text takes latencies in ms or s, `failures` in %, and other bounds without a unit. Raises
    `ValueError` that names the file or option and the fault.
    """
    if "=" not in given or given.endswith(".toml"):
        return Objectives.read(Path(given))
    bounds: dict[str, float] = {}
    for part in map(str.strip, given.split(",")):
        match = re.fullmatch(r"(\w+?)s? *= *(\d+\.?\d*|\.\d+) *(ms|s|%|)", part)
        suffix, factor = _UNITS[match[3]] if match else ("", 1.0)
        if not match or (field := match[1] + suffix) not in BOUNDS or field in bounds:
            raise ValueError(
                f"--slo {given}: cannot read {part!r}; give for example p99=250ms, p50=0.1s, failures=0.1%, "
                "throughput=50 or capacity=100, each once, separated by commas"
            )
        bounds[field] = float(match[2]) * factor
    try:
        return Objectives(objective=(Objective.model_validate(bounds),))
    except ValidationError as error:
        raise ValueError(f"--slo {given}: {Objectives.faults(error)}") from None
