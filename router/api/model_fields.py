"""Fields of a request whose right values depend on its model: model, prompt_name, task and dimensions.

The model must be validated first, then `prompt_name`.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, ValidationInfo
from pydantic_core import PydanticCustomError, PydanticKnownError

from triptych.router.api.bounds import MaxItems
from triptych.router.api.catalog import Catalog, Choice


@dataclass(slots=True)
class Choosing(MaxItems):
    """Validation of one request: the models it may name, the one it has chosen, and its `prompt_name`."""

    catalog: Catalog
    role: str | None = None
    chosen: Choice | None = None

    @property
    def choice(self) -> Choice:
        """The chosen model; the default one if the request names none."""
        if self.chosen is None:
            self.chosen = self.catalog.embedding(None)
        return self.chosen


def _context_of(info: ValidationInfo) -> Choosing:
    assert isinstance(info.context, Choosing)
    return info.context


def _choose(value: str, info: ValidationInfo) -> str:
    context = _context_of(info)
    context.chosen = context.catalog.embedding(value)
    return value


def _note_role(value: str, info: ValidationInfo) -> str:
    # The models' own code says `passage` (v4) or `document` (v5).
    _context_of(info).role = "passage" if value == "document" else value
    return value


def _known_task(value: object, info: ValidationInfo) -> str:
    """The task by its own name. The model's other names for it, and an alias's, are accepted."""
    context = _context_of(info)
    choice, role = context.choice, context.role
    family = choice.family
    if isinstance(value, str):
        task = choice.tasks.get(value) or family.other_tasks.get(value, value)
        if role is not None and f"{task}.{role}" in family.tasks:
            return f"{task}.{role}"
        if task in family.tasks:
            if role not in (None, family.tasks[task].role):
                raise PydanticCustomError("conflict", "cannot be used together with this prompt_name")
            return task
    *first, last = map(repr, family.tasks)
    raise PydanticKnownError("literal_error", {"expected": f"{', '.join(first)} or {last}"})


def _served_dimensions(value: int, info: ValidationInfo) -> int:
    served = _context_of(info).choice.served
    if value > served.dimensions:
        raise PydanticCustomError(
            "less_than_equal",
            "{model} has {dimensions} dimensions",
            {"model": served.family.name, "dimensions": served.dimensions},
        )
    return value


def whole_number(value: object) -> object:
    """Refuse values that pydantic would convert to a number. 1.0 is a whole number in JSON."""
    if isinstance(value, bool | str):
        raise PydanticCustomError("int_type", "Input should be a valid integer")
    return value


ModelName = Annotated[str, AfterValidator(_choose)]
PromptName = Annotated[Literal["query", "passage", "document"], AfterValidator(_note_role)]
TaskName = Annotated[str, PlainValidator(_known_task, json_schema_input_type=str)]
Dimensions = Annotated[int, Field(ge=1), BeforeValidator(whole_number), AfterValidator(_served_dimensions)]
