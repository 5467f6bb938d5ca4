"""The request as clients write it: changes when a field, an alias or a form of input does.

Inputs come in many forms, so the unions are told apart by a function first and validated second: a wrong
input then gets the one message that fits it, not one for every form it might have had. The tags of the
branches begin with `|`, which no field does, and are taken out of error paths again.
"""

from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError

from router.errors import FieldError, Invalid, shorten

Task = Literal["text-matching", "retrieval.query", "retrieval.passage", "code.query", "code.passage"]
TASKS: tuple[Task, ...] = get_args(Task)
EmbeddingType = Literal["float", "base64", "binary", "ubinary"]

_FORMS = ("text", "image", "url", "bytes", "pdf")
_RIGHT_ITEM = 'write a string, {"text": "..."} or {"image": "..."} (exactly one of them)'


def _unsupported(what: str) -> PydanticCustomError:
    return PydanticCustomError("unsupported", "{what} not supported by this version", {"what": what})


def _not_yet(value: bool | None, info: ValidationInfo) -> bool | None:
    if value:
        raise _unsupported(f"{info.field_name} is")
    return value


def _not_remote(value: str) -> str:
    if value[:8].lower().startswith(("http://", "https://")):
        raise _unsupported("http(s) addresses of images are")
    return value


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise PydanticCustomError("int_type", "Input should be a valid integer")
    return value


def _unwrap_one(value: object) -> object:
    if not isinstance(value, list):
        return value
    if len(value) != 1:
        raise PydanticCustomError("one_value", "one embedding_type a request; send it as a string")
    return value[0]


class _Item(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    task: Task | None = Field(None, description="The task of this item; the request's when left out.")


class TextItem(_Item):
    """A text."""

    text: str = Field(description="The text; it may be empty.")


class ImageItem(_Item):
    """An image."""

    image: Annotated[str, AfterValidator(_not_remote)] = Field(
        description="A PNG, JPEG, WebP or GIF image, as base64 or as a `data:image/...;base64,` URI."
    )


class UrlItem(_Item):
    """An image, in an older form."""

    url: Annotated[str, AfterValidator(_not_remote)] = Field(
        description="An image as a `data:image/...;base64,` URI."
    )


class BytesItem(_Item):
    """An image, in an older form."""

    bytes: str = Field(description="An image as base64.")


class PdfItem(_Item):
    """A PDF: named here only to say that this version does not take it."""

    pdf: Annotated[Any, BeforeValidator(lambda _: _refuse_pdf())]


def _refuse_pdf() -> None:
    raise _unsupported("PDFs are")


def _item_form(value: Any) -> str | None:
    if isinstance(value, str):
        return "|string"
    if isinstance(value, dict):
        forms = [form for form in _FORMS if value.get(form) is not None]
        return f"|{forms[0]}" if len(forms) == 1 else None
    return None


def _input_form(value: Any) -> str | None:
    if isinstance(value, str):
        return "|one string"
    if isinstance(value, dict):
        return "|one item"
    if not isinstance(value, list) or (value and all(isinstance(part, int | list) for part in value)):
        return None
    return "|strings" if all(isinstance(part, str) for part in value) else "|items"


InputItem = Annotated[
    Annotated[str, Tag("|string")]
    | Annotated[TextItem, Tag("|text")]
    | Annotated[ImageItem, Tag("|image")]
    | Annotated[UrlItem, Tag("|url")]
    | Annotated[BytesItem, Tag("|bytes")]
    | SkipJsonSchema[Annotated[PdfItem, Tag("|pdf")]],
    Discriminator(_item_form, custom_error_type="item_form", custom_error_message=_RIGHT_ITEM),
]
Input = Annotated[
    Annotated[str, Tag("|one string")]
    | Annotated[list[str], Field(min_length=1), Tag("|strings")]
    | Annotated[list[InputItem], Tag("|items")]
    | Annotated[InputItem, Tag("|one item")],
    Discriminator(
        _input_form,
        custom_error_type="input_form",
        custom_error_message=f"{_RIGHT_ITEM}, or a list of these; token ids are not taken",
    ),
]


class EmbeddingRequest(BaseModel):
    """What to embed, and how. Fields not listed here are ignored; null means the default."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: str | None = Field(
        None,
        description="`jina-embeddings-v4`, `jinaai/jina-embeddings-v4`, or either with `:<task>` behind "
        "it for clients that cannot send a task. The served model when left out.",
    )
    input: Input = Field(
        description="A string, a text or image item, or a list of them. A string that is a "
        "`data:image/...;base64,` URI is an image."
    )
    task: Task | None = Field(
        None,
        validation_alias=AliasChoices("task", "task_type"),
        description="What the vectors are for; `text-matching` when left out. Also taken as `task_type`.",
    )
    embedding_type: Annotated[EmbeddingType | None, BeforeValidator(_unwrap_one)] = Field(
        None,
        validation_alias=AliasChoices("embedding_type", "encoding_type", "encoding_format"),
        description="`float` (the default); `base64`: little-endian float32; `ubinary`: one bit a value, "
        "packed; `binary`: the same less 128. Also taken as `encoding_type` and `encoding_format`.",
    )
    return_multivector: bool | None = Field(
        None, description="One vector of 128 values for each token, instead of one for the input."
    )
    dimensions: Annotated[
        int | None,
        Field(ge=1, le=2048),
        BeforeValidator(_no_bool),
    ] = Field(
        None,
        validation_alias=AliasChoices("dimensions", "output_dimensionality", "output_dimension"),
        description="Cut each vector to this many values, then normalise it again; all of them when left "
        "out. Also taken as `output_dimensionality` and `output_dimension`.",
    )
    truncate: bool | None = Field(
        None,
        validation_alias=AliasChoices("truncate", "truncation"),
        description="Cut a text that is longer than the context (true), or refuse it (false, the default). "
        "Also taken as `truncation`.",
    )
    normalized: bool | None = Field(
        None, description="Vectors of length 1 (true, the default), or the mean as it is (false)."
    )
    late_chunking: Annotated[bool | None, AfterValidator(_not_yet)] = Field(
        None, description="Not supported by this version; only false is taken."
    )
    return_tokenized_input: Annotated[bool | None, AfterValidator(_not_yet)] = Field(
        None, description="Not supported by this version; only false is taken."
    )

    @field_validator("dimensions")
    @classmethod
    def _whole_vectors(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and info.data.get("return_multivector"):
            raise PydanticCustomError("conflict", "cannot be used together with return_multivector")
        return value


def parse_request(body: bytes) -> EmbeddingRequest:
    """The request in `body`; raises `Invalid`, which names every field that is wrong."""
    try:
        return EmbeddingRequest.model_validate_json(body)
    except ValidationError as error:
        raise Invalid(_field_errors(error)) from None


def _field_errors(error: ValidationError) -> list[FieldError]:
    return [
        FieldError(
            field=" -> ".join(["body", *(str(part) for part in fault["loc"] if str(part)[:1] != "|")]),
            message=fault["msg"],
            type=fault["type"],
            input=None if fault["type"] in ("missing", "json_invalid") else shorten(fault["input"]),
        )
        for fault in error.errors(include_url=False, include_context=False)
    ]
