"""One request of a load, before it is put into the words of any server."""

from typing import Literal

import msgspec

Kind = Literal["embed", "rerank"]
Encoding = Literal["base64", "float"]
Task = Literal["retrieval.query", "retrieval.passage", "text-matching", "code.query", "code.passage"]
TASKS: tuple[Task, ...] = (
    "retrieval.query",
    "retrieval.passage",
    "text-matching",
    "code.query",
    "code.passage",
)

Input = str | bytes
"""A text, or the bytes of a PNG or JPEG."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for. With `kind` rerank, `inputs` are the documents for `query`.

    `dimensions` None: the model's own. `golden` names, for some inputs by their place, the golden vector
    that has to come back: an index into those of `task`.
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
