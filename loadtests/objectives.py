"""Objectives that a run must meet, from a TOML file or a short text."""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]

_SHORT = {
    **{(name, "ms"): (f"{name}_ms", 1.0) for name in ("p50", "p90", "p99", "p999")},
    **{(name, "s"): (f"{name}_ms", 1e3) for name in ("p50", "p90", "p99", "p999")},
    ("failures", "%"): ("failure_share", 0.01),
    ("throughput", ""): ("throughput", 1.0),
    ("capacity", ""): ("capacity", 1.0),
}
"""Field and factor, by name and unit in the short text."""


class _Bounds(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="after")
    def _bounds_something(self) -> Self:
        known = [name for name in type(self).model_fields if name not in ("flow", "segments")]
        if all(getattr(self, name) in (None, ()) for name in known):
            raise ValueError(f"nothing is bounded; give at least one of {', '.join(known)}")
        return self


class Objective(_Bounds):
    """Bounds for one flow (default: all flows together) in some segments (default: each).

    Latencies are at most so many milliseconds: `service_p99_ms` since the request was sent, `router_p99_ms`
    by the server's clock, the others since the request was due. `failure_share`, `p99_over_p50` and
    `p99_over_idle_p50` (p50 before the load) are at most; `throughput` (answered per second),
    `throughput_share` (answered by offered) and `capacity` (requests per second) are at least.
    """

    flow: str | None = None
    segments: tuple[str, ...] | None = None
    p50_ms: Positive | None = None
    p90_ms: Positive | None = None
    p99_ms: Positive | None = None
    p999_ms: Positive | None = None
    service_p99_ms: Positive | None = None
    router_p99_ms: Positive | None = None
    failure_share: Share | None = None
    throughput: Positive | None = None
    throughput_share: Share | None = None
    p99_over_idle_p50: Positive | None = None
    p99_over_p50: Positive | None = None
    capacity: Positive | None = None


class Baseline(_Bounds):
    """Bounds as ratios to another run, in segments of the same name and load: `p50` and `p99` at most, the
    others at least."""

    p50: Positive | None = None
    p99: Positive | None = None
    throughput: Positive | None = None
    capacity: Positive | None = None


class Objectives(_Bounds):
    """All must be met. Besides, no reply may be wrong."""

    objective: tuple[Objective, ...] = ()
    baseline: Baseline | None = None


BOUNDS = tuple(name for name in Objective.model_fields if name not in ("flow", "segments"))


def read_objectives(given: str) -> Objectives:
    """Read a TOML file, or a short text such as "p99=250ms,failures=0.1%".

    The short text takes `p50`, `p90`, `p99`, `p999` in ms or s, `failures` in %, `throughput` and `capacity`
    per second. Raises `ValueError` that names the file or option and the fault.
    """
    if "=" in given and not given.endswith(".toml"):
        return _read_short(given)
    try:
        return Objectives.model_validate(tomllib.loads(Path(given).read_text()))
    except OSError as error:
        raise ValueError(
            f"--slo {given}: {error.strerror}; give a file, or a text such as p99=250ms,failures=0.1%"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{given}: not valid TOML: {error}") from None
    except ValidationError as error:
        raise ValueError(f"{given}: {_faults(error)}") from None


def _read_short(text: str) -> Objectives:
    bounds: dict[str, float] = {}
    for part in map(str.strip, text.split(",")):
        match = re.fullmatch(r"(\w+) *= *(\d+\.?\d*|\.\d+) *(ms|s|%|)", part)
        field, factor = _SHORT.get((match[1], match[3]), ("", 1.0)) if match else ("", 1.0)
        if not match or not field or field in bounds:
            raise ValueError(
                f"--slo {text}: cannot read {part!r}; give for example p99=250ms, p50=0.1s, failures=0.1%, "
                "throughput=50 or capacity=100, each once, separated by commas"
            )
        bounds[field] = float(match[2]) * factor
    try:
        return Objectives(objective=(Objective.model_validate(bounds),))
    except ValidationError as error:
        raise ValueError(f"--slo {text}: {_faults(error)}") from None


def _faults(error: ValidationError) -> str:
    faults = []
    for fault in error.errors():
        where, text = ".".join(map(str, fault["loc"])) or "file", fault["msg"]
        if fault["type"] == "extra_forbidden":
            tables: dict[object, type[_Bounds]] = {"objective": Objective, "baseline": Baseline}
            table = tables.get(fault["loc"][0], Objectives) if len(fault["loc"]) > 1 else Objectives
            text = f"unknown field; the fields are {', '.join(table.model_fields)}"
        faults.append(f"{where}: {text}")
    return "; ".join(faults)
