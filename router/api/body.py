"""JSON request bodies: limit the number of values, parse, validate, and list all wrong fields."""

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from triptych.router.api.bounds import MaxItems, check_values
from triptych.router.api.large_json import read, read_large
from triptych.router.errors import FieldError, Invalid, shorten

_Body = TypeVar("_Body", bound=BaseModel)

# A larger body is read in steps, in a thread. A smaller one takes up to a few milliseconds.
LARGE_BYTES = 256 << 10
_BOM = b"\xef\xbb\xbf"


def parse_body(model: type[_Body], body: bytes, context: MaxItems) -> _Body:
    """Validate `body` as `model`. Raises `Invalid` with all wrong fields.

    A lone surrogate escape becomes U+FFFD. `JSON.stringify` writes one for a text that was cut within a
    character, and one such text should not refuse the other inputs. A UTF-8 byte order mark is skipped, as
    RFC 8259 (section 8.1) allows.
    """
    body = body.removeprefix(_BOM)
    try:
        if len(body) > LARGE_BYTES:
            value = read_large(body, context.max_items)
        else:
            check_values(body, context.max_items)
            value = read(body)
    except ValueError as error:
        raise Invalid.field("body", f"Invalid JSON: {error}", "json_invalid") from None
    try:
        return model.model_validate(value, context=context)
    except ValidationError as error:
        raise Invalid(_field_errors(error)) from None


def _field_errors(error: ValidationError) -> list[FieldError]:
    """The errors of a body for clients. Tags of unions are removed from the paths."""
    return [
        FieldError(
            field=" -> ".join(["body", *(str(part) for part in fault["loc"] if str(part)[:1] != "|")]),
            message=fault["msg"],
            type=fault["type"],
            input=None if fault["type"] == "missing" else shorten(fault["input"]),
        )
        for fault in error.errors(include_url=False, include_context=False)
    ]
