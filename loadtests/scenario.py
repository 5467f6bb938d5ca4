"""Scenarios: which requests a load is made of, read from TOML files."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from loadtests.content.lengths import Fixed, Lengths
from loadtests.request import Encoding, Kind, Task

FOLDER = Path(__file__).with_name("scenarios")
Share = Annotated[float, Field(ge=0, le=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Picture(_Strict):
    """An image in pixels."""

    width: Lengths = Fixed(value=448)
    height: Lengths = Fixed(value=448)
    form: Literal["jpeg", "png"] = "jpeg"


class Repeats(_Strict):
    """Inputs that come again: the one of rank r, of `distinct`, is as frequent as r^-`zipf`."""

    distinct: PositiveInt
    zipf: PositiveFloat = 1.0


class Flow(_Strict):
    """Requests of one kind.

    `weight`: its share of the requests. `tokens` are those of an input, `query_tokens` of a rerank request's
    query, both without what the task puts before them. `images` is the share of the inputs that are images.
    `pause_seconds` is how long a user waits between a reply and its next request. `headers` go with every
    request.
    """

    name: Annotated[str, Field(min_length=1, pattern=r"^[\w .-]+$")]
    weight: PositiveFloat = 1.0
    kind: Kind = "embed"
    task: Task
    tokens: Lengths = Fixed(value=20)
    inputs: Lengths = Fixed(value=1)
    query_tokens: Lengths = Fixed(value=12)
    images: Share = 0.0
    picture: Picture = Picture()
    encoding: Encoding = "base64"
    dimensions: PositiveInt | None = None
    multivector: bool = False
    late_chunking: bool = False
    headers: Mapping[str, str] = {}
    languages: Mapping[str, PositiveFloat] = {}
    repeats: Repeats | None = None
    pause_seconds: Annotated[float, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.kind == "rerank" and (self.multivector or self.late_chunking):
            raise ValueError("kind rerank gives scores: leave multivector and late_chunking out")
        if self.late_chunking and self.images:
            raise ValueError("late_chunking takes texts only: leave images out")
        if self.late_chunking and self.multivector:
            raise ValueError("late_chunking gives one vector for each input: leave multivector out")
        return self


class Scenario(_Strict):
    """Flows, and the languages of their texts with the weight of each."""

    about: str
    languages: Mapping[str, PositiveFloat] = {"en": 1.0}
    flows: Annotated[tuple[Flow, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [flow.name for flow in self.flows]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(
                f"flows: each needs a name of its own, {', '.join(sorted(twice))} is there twice"
            )
        return self


def names() -> list[str]:
    """Of the scenarios that come with the harness."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def read_scenario(name: str) -> Scenario:
    """One that comes with the harness, or one from the file of that name.

    Raises `ValueError` that says what is wrong where.
    """
    path = FOLDER / f"{name}.toml" if name in names() else Path(name)
    try:
        text = path.read_text()
    except OSError as error:
        choice = ", ".join(names())
        raise ValueError(f"scenario {name}: no such file ({error.strerror}), nor one of {choice}") from None
    try:
        return Scenario.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is no TOML: {error}") from None
    except ValidationError as error:
        faults = (
            f"{'.'.join(map(str, fault['loc'])) or 'scenario'}: {fault['msg']}" for fault in error.errors()
        )
        raise ValueError(f"{path}: {'; '.join(faults)}") from None
