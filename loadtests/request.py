"""A request of a load, independent of any server's API."""

from typing import Literal, get_args

import msgspec

Kind = Literal["embed", "rerank"]
Encoding = Literal["base64", "float"]
Task = Literal["retrieval.query", "retrieval.passage", "text-matching", "code.query", "code.passage"]
TASKS: tuple[Task, ...] = get_args(Task)

Input = str | bytes
"""A text, or the bytes of a PNG or JPEG."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A request to embed `inputs`, or with `kind` rerank to rank them as documents for `query`.

    `dimensions` None: the model's own. `golden` maps the places of some inputs to the golden vectors that
    must come back: indexes into the golden vectors of `task`.
    """

    flow: str
    kind: Kind = "embed"
    task: Task
    inputs: list[Input]
    query: str = ""
    encoding: Encoding = "base64"
    dimensions: int | None = None
    multivector: bool = False
    late_chunking: bool = False
    headers: dict[str, str] = {}
    golden: dict[int, int] = {}
