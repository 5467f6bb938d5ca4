"""Aliases: other names for a model, with what their clients mean by them."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from triptych.workers.shared.families import BY_NAME, V4


class Alias(BaseModel):
    """What a model name stands for.

    `task` and `dimensions` are for requests without them. `tasks` maps the client's names to tasks of the
    model.
    """

    model_config = ConfigDict(frozen=True)

    model: str = V4.name
    task: str | None = None
    tasks: Mapping[str, str] = Field(default_factory=dict)
    dimensions: int | None = Field(None, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _no_strays(cls, data: Any) -> Any:
        if isinstance(data, dict) and (strays := set(data) - set(cls.model_fields)):
            known = ", ".join(cls.model_fields)
            raise ValueError(
                f"an alias has {known}, not {', '.join(sorted(strays))}; tasks maps names of tasks"
            )
        return data

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.model not in BY_NAME:
            raise ValueError(f"model: no model {self.model!r}; the models are {', '.join(BY_NAME)}")
        family = BY_NAME[self.model]
        for task in (self.task, *self.tasks.values()):
            if task is not None and task not in family.tasks:
                raise ValueError(
                    f"{self.model} has no task {task!r}; it has {', '.join(family.tasks) or 'no tasks'}"
                )
        if self.dimensions is not None and self.dimensions > family.dimensions:
            raise ValueError(f"dimensions: {self.model} has {family.dimensions}")
        return self


Aliases = Mapping[str, Alias]

# Clients of v2 send no task, and encode queries and passages alike. Passages of one pool can be compared with
# each other, and with the queries of clients that do send a task for these.
_V2 = Alias(task="retrieval.passage", dimensions=768)
OLD_MODELS: Aliases = {
    "jina-embeddings-v3": Alias(
        task="retrieval.passage",
        tasks={"classification": "text-matching", "separation": "text-matching"},
        dimensions=1024,
    ),
    **{f"jina-embeddings-v2-base-{language}": _V2 for language in ("en", "de", "es", "zh")},
    "jina-embeddings-v2-base-code": Alias(task="code.passage", dimensions=768),
    "jina-embeddings-v2-small-en": Alias(task="retrieval.passage", dimensions=512),
}
"""The names of v2 and v3 models, served by v4 with the number of values that their clients expect."""
