"""Objectives that a run must meet, from a TOML file or a short text."""

import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError, model_validator

from triptych.loadtests.toml_files import faults, read_toml

_SHORT = {
    **{(name, "ms"): (f"{name}_ms", 1.0) for name in ("p50", "p90", "p99", "p999")},
    **{(name, "s"): (f"{name}_ms", 1e3) for name in ("p50", "p90", "p99", "p999")},
    ("failures", "%"): ("failure_share", 0.01),
    ("throughput", ""): ("throughput", 1.0),
    ("capacity", ""): ("capacity", 1.0),
}
"""Field and factor, by name and unit in the short text."""


class Objective(BaseModel):
    """Bounds for one flow (default: all flows together) in some segments (default: each).

    Latencies are at most so many milliseconds: `service_p99_ms` since the request was sent, `router_p99_ms`
    by the server's clock, the others since the request was due. `failure_share`, `p99_over_p50` and
    `p99_over_idle_p50` (p50 before the load) are at most; `throughput` (answered per second),
    `throughput_share` (answered by offered) and `capacity` (requests per second) are at least.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    flow: str | None = None
    segments: tuple[str, ...] | None = None
    p50_ms: PositiveFloat | None = None
    p90_ms: PositiveFloat | None = None
    p99_ms: PositiveFloat | None = None
    p999_ms: PositiveFloat | None = None
    service_p99_ms: PositiveFloat | None = None
    router_p99_ms: PositiveFloat | None = None
    failure_share: Annotated[float, Field(ge=0, le=1)] | None = None
    throughput: PositiveFloat | None = None
    throughput_share: Annotated[float, Field(ge=0, le=1)] | None = None
    p99_over_idle_p50: PositiveFloat | None = None
    p99_over_p50: PositiveFloat | None = None
    capacity: PositiveFloat | None = None

    @property
    def bounds(self) -> set[str]:
        """Names of the bounds that are set."""
        return self.model_dump(exclude_none=True).keys() - {"flow", "segments"}

    @model_validator(mode="after")
    def _bounds_something(self) -> Self:
        if not self.bounds:
            raise ValueError(f"nothing is bounded; give at least one of {', '.join(BOUNDS)}")
        return self


BOUNDS = tuple(name for name in Objective.model_fields if name not in ("flow", "segments"))


class Objectives(BaseModel):
    """All must be met. Besides, no reply may be wrong."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    objective: Annotated[tuple[Objective, ...], Field(min_length=1)]


def read_objectives(given: str) -> Objectives:
    """Read a TOML file, or a short text such as "p99=250ms,failures=0.1%".

    The short text takes `p50`, `p90`, `p99`, `p999` in ms or s, `failures` in %, `throughput` and `capacity`
    per second. Raises `ValueError` that names the file or option and the fault.
    """
    if "=" not in given or given.endswith(".toml"):
        return read_toml(Path(given), Objectives, Objective)
    bounds: dict[str, float] = {}
    for part in map(str.strip, given.split(",")):
        match = re.fullmatch(r"(\w+) *= *(\d+\.?\d*|\.\d+) *(ms|s|%|)", part)
        field, factor = _SHORT.get((match[1], match[3]), ("", 1.0)) if match else ("", 1.0)
        if not match or not field or field in bounds:
            raise ValueError(
                f"--slo {given}: cannot read {part!r}; give for example p99=250ms, p50=0.1s, failures=0.1%, "
                "throughput=50 or capacity=100, each once, separated by commas"
            )
        bounds[field] = float(match[2]) * factor
    try:
        return Objectives(objective=(Objective.model_validate(bounds),))
    except ValidationError as error:
        raise ValueError(f"--slo {given}: {faults(error, Objectives, Objective)}") from None
