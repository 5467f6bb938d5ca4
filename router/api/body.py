"""JSON request bodies: limit the number of values, parse, validate, and list all wrong fields."""

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from triptych.router.api.bounds import MaxItems, check_values
from triptych.router.api.large_json import read_large, without_lone_surrogates
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
            return model.model_validate(_large(body, context.max_items), context=context)
        check_values(body, context.max_items)
        try:
            return model.model_validate_json(body, context=context)
        except ValidationError as error:
            if not _has_bad_escape(error):
                raise
            try:
                mended = without_lone_surrogates(body)
            except ValueError:
                raise error from None
            return model.model_validate_json(mended, context=context)
    except ValidationError as error:
        raise Invalid(_field_errors(error)) from None


def _large(body: bytes, max_items: int) -> object:
    try:
        return read_large(body, max_items)
    except ValueError as error:
        raise Invalid.field("body", f"Invalid JSON: {error}", "json_invalid") from None


def _has_bad_escape(error: ValidationError) -> bool:
    """Whether the parser stopped at a surrogate escape. `json_invalid` is always the only error."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return first["type"] == "json_invalid" and "hex escape" in first["msg"]


def _field_errors(error: ValidationError) -> list[FieldError]:
    """The errors of a body for clients. Tags of unions are removed from the paths."""
    return [
        FieldError(
            field=" -> ".join(["body", *(str(part) for part in fault["loc"] if str(part)[:1] != "|")]),
            message=fault["msg"],
            type=fault["type"],
            input=None if fault["type"] in ("missing", "json_invalid") else shorten(fault["input"]),
        )
        for fault in error.errors(include_url=False, include_context=False)
    ]
