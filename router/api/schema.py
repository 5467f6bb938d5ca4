"""The schema of embedding requests: fields, aliases and forms of input.

Inputs have many forms. A function first chooses the branch of the union, so that a wrong input gets one error
and not one for each form. Tags of branches begin with `|`, which no field does, and are removed from error
paths.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError

from triptych.router.api.body import parse_body
from triptych.router.api.bounds import not_too_many
from triptych.router.api.catalog import Catalog
from triptych.router.api.model_fields import Choosing, Dimensions, ModelName, PromptName, TaskName

EmbeddingType = Literal["float", "base64", "binary", "ubinary"]

_FORMS = ("text", "image", "url", "bytes", "pdf")
RANKED_FORMS = ("text", "image")
_RIGHT_ITEM = 'write a string, {"text": "..."}, {"image": "..."} or {"pdf": "..."} (exactly one of them)'


def _unwrap_one(value: object) -> object:
    if not isinstance(value, list):
        return value
    if len(value) != 1:
        raise PydanticCustomError("one_value", "only one embedding_type per request; send it as a string")
    return value[0]


def one_form_of(forms: Sequence[str]) -> Callable[[dict[str, Any], type[BaseModel]], None]:
    """A `json_schema_extra` that excludes the other forms, as the discriminator does."""

    def extend(schema: dict[str, Any], model: type[BaseModel]) -> None:
        others = [form for form in forms if form not in model.model_fields]
        schema["properties"].update({form: {"type": "null"} for form in others})

    return extend


def form_of(forms: Sequence[str]) -> Callable[[Any], str | None]:
    """A discriminator: `|string`, or the one of `forms` that an object has."""

    def find(value: Any) -> str | None:
        if isinstance(value, str):
            return "|string"
        given = [form for form in forms if isinstance(value, dict) and value.get(form) is not None]
        return f"|{given[0]}" if len(given) == 1 else None

    return find


_item_form = form_of(_FORMS)


class _Ranked(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", json_schema_extra=one_form_of(RANKED_FORMS))


class RankedText(_Ranked):
    """A text."""

    text: str = Field(description="The text; it may be empty.")


class RankedImage(_Ranked):
    """An image."""

    image: str = Field(
        description="A PNG, JPEG, WebP or GIF image: an http(s) URL, base64, or a `data:...;base64,` URI."
    )


class _Item(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", json_schema_extra=one_form_of(_FORMS))

    task: TaskName | None = Field(
        None, description="The task of this item; by default the task of the request."
    )


class TextItem(RankedText, _Item):
    """A text."""


class ImageItem(RankedImage, _Item):
    """An image."""


class UrlItem(_Item):
    """An image, in an older form."""

    url: str = Field(description="An image: an http(s) URL, a `data:...;base64,` URI, or base64.")


class BytesItem(_Item):
    """An image, in an older form."""

    bytes: str = Field(description="An image as base64.")


class PdfItem(_Item):
    """A PDF, the only input of its request. Each page becomes an image."""

    pdf: str = Field(description="A PDF: an http(s) URL, base64, or a `data:application/pdf;base64,` URI.")


ITEMS = (TextItem, ImageItem, UrlItem, BytesItem, PdfItem)
"""The forms of an input that is an object."""


def _input_form(value: Any) -> str | None:
    if isinstance(value, str):
        return "|one string"
    if isinstance(value, dict):
        return "|one item"
    if not isinstance(value, list) or (value and all(isinstance(part, int | list) for part in value)):
        return None
    if len(value) == 1 and _item_form(value[0]) == "|pdf":
        return "|one PDF"
    return "|strings" if all(isinstance(part, str) for part in value) else "|items"


_form = Discriminator(_item_form, custom_error_type="item_form", custom_error_message=_RIGHT_ITEM)
_Listable = (
    Annotated[TextItem, Tag("|text")]
    | Annotated[ImageItem, Tag("|image")]
    | Annotated[UrlItem, Tag("|url")]
    | Annotated[BytesItem, Tag("|bytes")]
)
_Pdf = Annotated[PdfItem, Tag("|pdf")]
InputItem = Annotated[Annotated[str, Tag("|string")] | _Listable | SkipJsonSchema[_Pdf], _form]
LoneItem = Annotated[_Listable | _Pdf, _form]
Input = Annotated[
    Annotated[str, Tag("|one string")]
    | Annotated[list[str], Field(min_length=1), Tag("|strings")]
    | Annotated[list[InputItem], Field(min_length=1), Tag("|items")]
    | Annotated[list[PdfItem], Field(min_length=1, max_length=1), Tag("|one PDF")]
    | Annotated[LoneItem, Tag("|one item")],
    Discriminator(
        _input_form,
        custom_error_type="input_form",
        custom_error_message=f"{_RIGHT_ITEM}, or a list of these; token ids are not supported",
    ),
]


class EmbeddingRequest(BaseModel):
    """What to embed, and how. Unknown fields are ignored; null means the default."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    # First, since these decide which tasks there are and what their names mean.
    model: ModelName | None = Field(
        None,
        description="A name that `/v1/models` lists, also after `jinaai/`, or one of these followed by "
        "`:<task>` for clients that cannot send a task. By default the first model that is served.",
    )
    prompt_name: PromptName | None = Field(
        None,
        description="With the tasks `retrieval` and `code`, as the models' own code takes them: `query` or "
        "`passage` (also `document`).",
    )
    input: Annotated[Input, BeforeValidator(not_too_many)] = Field(
        description="A string, a text or image item, or a list of them; or a PDF, alone. A string that is a "
        "`data:image/...;base64,` URI is an image."
    )
    task: TaskName | None = Field(
        None,
        validation_alias=AliasChoices("task", "task_type"),
        description="What the vectors are for; the tasks and the default depend on the model. Alias: "
        "`task_type`.",
    )
    embedding_type: Annotated[EmbeddingType | None, BeforeValidator(_unwrap_one)] = Field(
        None,
        validation_alias=AliasChoices("embedding_type", "encoding_type", "encoding_format"),
        description="`float` (the default); `base64`: little-endian float32; `ubinary`: one bit a value, "
        "packed; `binary`: the same minus 128. Aliases: `encoding_type`, `encoding_format`.",
    )
    return_multivector: bool | None = Field(
        None, description="One vector of 128 values for each token, instead of one for each input."
    )
    dimensions: Dimensions | None = Field(
        None,
        validation_alias=AliasChoices("dimensions", "output_dimensionality", "output_dimension"),
        description="Cut each vector to this many values and normalise it again; by default all values. "
        "Aliases: `output_dimensionality`, `output_dimension`.",
    )
    truncate: bool | None = Field(
        None,
        validation_alias=AliasChoices("truncate", "truncation"),
        description="Truncate texts that are longer than the context (true), or refuse them (false, the "
        "default). Alias: `truncation`.",
    )
    normalized: bool | None = Field(
        None, description="Normalise vectors to length 1 (true, the default), or leave their length (false)."
    )
    late_chunking: bool | None = Field(
        None,
        description="Embed the inputs as parts of one document: a vector for each part in the context of the "
        "others. All must be texts of one task, and together fit into the context. Parts are joined with a "
        "space unless there is white space already. Not with return_multivector.",
    )
    return_tokenized_input: bool | None = Field(
        None,
        description="Also return the text of each token, as `tokenized_input`. Only with return_multivector.",
    )
    embed_dtype: Literal["float32", "float16"] | None = Field(
        None, description="The values of a .npy reply (`Accept: application/x-npy`); float32 by default."
    )

    @model_validator(mode="before")
    @classmethod
    def _null_means_default(cls, data: Any) -> Any:
        # A field that is null must not hide its alias.
        if isinstance(data, dict) and None in data.values():
            return {name: value for name, value in data.items() if value is not None}
        return data

    @field_validator("dimensions", "late_chunking")
    @classmethod
    def _one_vector_only(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value and info.data.get("return_multivector"):
            raise PydanticCustomError("conflict", "cannot be used together with return_multivector")
        return value

    @field_validator("return_tokenized_input")
    @classmethod
    def _many_vectors_only(cls, value: bool | None, info: ValidationInfo) -> bool | None:
        if value and not info.data.get("return_multivector"):
            raise PydanticCustomError("conflict", "requires return_multivector")
        return value


def parse_request(body: bytes, catalog: Catalog, max_items: int) -> EmbeddingRequest:
    """Parse a request. Raises `ModelNotFound`, or `Invalid` with all wrong fields."""
    return parse_body(EmbeddingRequest, body, Choosing(max_items, "inputs", catalog))
