"""Objectives: what a run has to hold, from a TOML file or in short."""

import tomllib
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Objective(_Strict):
    """Bounds for a flow, or all flows together where none is named, in some segments or in each.

    Latencies are at most so many milliseconds: `service_p99_ms` from when a request was sent, `router_p99_ms`
    as the server says, the others from when it was due. The shares of failures is at most, throughput
    (requests answered well a second, or as a share of what was offered) at least. `p99_over_idle_p50` is how
    many times the p50 before the load the p99 may be, `p99_over_p50` how many times that under the same load.
    `capacity` is in requests a second, at least.
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

    @model_validator(mode="after")
    def _bounds_something(self) -> Self:
        if not any(getattr(self, name) is not None for name in BOUNDS):
            raise ValueError(f"it bounds nothing: give at least one of {', '.join(BOUNDS)}")
        return self


BOUNDS = tuple(name for name in Objective.model_fields if name not in ("flow", "segments"))


class Baseline(_Strict):
    """Bounds against another run, as ratios to it, in segments of the same name and load: `p50` and `p99` at
    most, the others at least."""

    p50: Positive | None = None
    p99: Positive | None = None
    throughput: Positive | None = None
    capacity: Positive | None = None

    @model_validator(mode="after")
    def _bounds_something(self) -> Self:
        if not self.model_dump(exclude_none=True):
            raise ValueError(f"it bounds nothing: give at least one of {', '.join(Baseline.model_fields)}")
        return self


class Objectives(_Strict):
    """All have to hold. That no reply is wrong always has to."""

    objective: tuple[Objective, ...] = ()
    baseline: Baseline | None = None

    @model_validator(mode="after")
    def _asks_for_something(self) -> Self:
        if not self.objective and self.baseline is None:
            raise ValueError("it has neither [[objective]] nor [baseline]")
        return self


def read_objectives(given: str) -> Objectives:
    """From a TOML file, or in short such as "p99=250ms,failures=0.1%".

    Short: `p50`, `p90`, `p99`, `p999` with ms or s, `failures` with %, `throughput` and `capacity` a second.
    Raises `ValueError` that says what is wrong where.
    """
    if "=" in given and not given.endswith(".toml"):
        return _parse(given)
    path = Path(given)
    try:
        return Objectives.model_validate(tomllib.loads(path.read_text()))
    except OSError as error:
        raise ValueError(
            f"--slo {given}: {error.strerror}; a file, or such as p99=250ms,failures=0.1%"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is no TOML: {error}") from None
    except ValidationError as error:
        raise ValueError(f"{path}: {'; '.join(map(_said, error.errors()))}") from None


def _said(fault: ErrorDetails) -> str:
    where = ".".join(map(str, fault["loc"])) or "file"
    if fault["type"] != "extra_forbidden":
        return f"{where}: {fault['msg']}"
    table: dict[int | str, type[_Strict]] = {"objective": Objective, "baseline": Baseline}
    known = table.get(fault["loc"][0], Objectives) if len(fault["loc"]) > 1 else Objectives
    return f"{where}: there is no such field, but {', '.join(known.model_fields)}"


def _parse(text: str) -> Objectives:
    units = {"ms": 1.0, "s": 1e3}
    bounds: dict[str, float] = {}
    given: set[str] = set()
    for part in text.split(","):
        name, _, value = (piece.strip() for piece in part.partition("="))
        try:
            if name in given:
                raise ValueError
            given.add(name)
            if name in ("p50", "p90", "p99", "p999"):
                unit = "ms" if value.endswith("ms") else "s"
                bounds[f"{name}_ms"] = float(value.removesuffix(unit)) * units[unit]
                if not value.endswith(unit):
                    raise ValueError
            elif name == "failures":
                if not value.endswith("%"):
                    raise ValueError
                bounds["failure_share"] = float(value.removesuffix("%")) / 100
            elif name in ("throughput", "capacity"):
                bounds[name] = float(value)
            else:
                raise ValueError
            if bounds and list(bounds.values())[-1] < 0:
                raise ValueError
        except ValueError:
            raise ValueError(
                f"--slo {text}: cannot read {part.strip()!r}; such as p99=250ms, p50=0.1s, failures=0.1%, "
                "throughput=50, capacity=100, each once, with commas between them"
            ) from None
    try:
        return Objectives(objective=(Objective(**bounds),))
    except ValidationError as error:
        raise ValueError(f"--slo {text}: {error.errors()[0]['msg']}") from None
