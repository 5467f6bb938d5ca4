"""Scenarios: what a load is made of, read from TOML files; and the requests that they describe."""

import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self, get_args

from pydantic import AfterValidator, Field, FiniteFloat, PositiveFloat, PositiveInt, model_validator

from triptych.loadtests.content.corpus import LANGUAGES
from triptych.loadtests.toml_files import Strict

Kind = Literal["embed", "rerank"]
Encoding = Literal["base64", "float"]
Task = Literal["retrieval.query", "retrieval.passage", "text-matching", "code.query", "code.passage"]
TASKS: tuple[Task, ...] = get_args(Task)

Input = str | bytes
"""A text, or the bytes of a PNG or JPEG."""


def _known(language: str) -> str:
    if language not in LANGUAGES:
        raise ValueError(f"not one of {', '.join(LANGUAGES)}")
    return language


Languages = Mapping[Annotated[str, AfterValidator(_known)], PositiveFloat]
FOLDER = Path(__file__).with_name("scenarios")
Whole = Annotated[int, Field(strict=True, gt=0)]


class Lognormal(Strict):
    """Lognormal with `median` and `sigma`, cut to `low` and `high`."""

    median: PositiveFloat
    sigma: Annotated[FiniteFloat, Field(gt=0)]
    low: Whole
    high: Whole

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.low <= self.median <= self.high:
            raise ValueError(f"median: {self.median:g} is not between low, {self.low}, and high, {self.high}")
        return self


Lengths = Whole | Annotated[tuple[Whole, ...], Field(min_length=1)] | Lognormal
"""A fixed length, one of several with equal chances, or a distribution."""


class Picture(Strict):
    """An image in pixels."""

    width: Lengths = 448
    height: Lengths = 448
    form: Literal["jpeg", "png"] = "jpeg"


class Flow(Strict):
    """Requests of one kind.

    `weight`: share of the requests. `tokens`: tokens of an input, and `query_tokens` of a rerank query,
    without the task's prefix. `images`: share of the inputs that are images. `dimensions` None: the model's
    own. `headers` are sent with every request.
    """

    name: Annotated[str, Field(min_length=1, pattern=r"^[\w .-]+$")]
    weight: PositiveFloat = 1.0
    kind: Kind = "embed"
    task: Task
    tokens: Lengths = 20
    inputs: Lengths = 1
    query_tokens: Lengths = 12
    images: Annotated[float, Field(ge=0, le=1)] = 0.0
    picture: Picture = Picture()
    encoding: Encoding = "base64"
    dimensions: PositiveInt | None = None
    multivector: bool = False
    late_chunking: bool = False
    headers: Mapping[str, str] = Field({})
    languages: Languages = Field({})

    @model_validator(mode="after")
    def _rerank_returns_scores(self) -> Self:
        # A rerank request has no fields for these, so no server could refuse them.
        if self.kind == "rerank" and (self.multivector or self.late_chunking):
            raise ValueError("rerank takes neither multivector nor late_chunking")
        return self


class Request(NamedTuple):
    """A request of a flow to embed `inputs`, or to rank them as documents for `query`.

    `golden` maps the places of some inputs to the golden vectors that must come back: indexes into the golden
    vectors of the flow's task.
    """

    flow: Flow
    inputs: list[Input]
    query: str = ""
    golden: Mapping[int, int] = {}


class Scenario(Strict):
    """Flows, and the languages of their texts by weight."""

    rows = Flow
    about: str
    languages: Languages = Field({"en": 1.0}, min_length=1)
    flows: Annotated[tuple[Flow, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [flow.name for flow in self.flows]
        if repeated := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"flows: duplicate name {', '.join(sorted(repeated))}")
        return self


def draw_length(lengths: Lengths, draw: random.Random) -> int:
    """The next of some lengths."""
    match lengths:
        case int():
            return lengths
        case Lognormal(median=median, sigma=sigma, low=low, high=high):
            drawn = median * math.exp(min(draw.gauss(0, sigma), 700.0))
            return high if drawn >= high else max(low, round(drawn))
        case _:
            return draw.choice(lengths)


def names() -> list[str]:
    """The scenarios that come with the load tester."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def read_scenario(name: str) -> Scenario:
    """A scenario that comes with the load tester, or one from a file.

    Raises `ValueError` that names the file and the field.
    """
    path = FOLDER / f"{name}.toml" if name in names() else Path(name)
    if not path.is_file():
        raise ValueError(f"scenario {name}: no such file, and not one of {', '.join(names())}")
    return Scenario.read(path)
