"""Everything that can go wrong with a request, and the reply each one makes.

    RouterError
    ├── AuthError
    │   ├── MissingKey           no API key where one is needed
    │   └── InvalidKey           an API key that is none
    ├── RateExceeded
    │   ├── RequestRateExceeded  the key's requests of this minute are used up
    │   └── TokenRateExceeded    the key's tokens of this minute are used up
    ├── InputError
    │   ├── ModelNotFound        the model is not one of those served
    │   ├── TokenLimitExceeded   an input is longer than the context and may not be cut
    │   ├── MediaInvalid         an image or a PDF that is not one
    │   ├── MediaUnreachable     the address of an image or a PDF gives none
    │   ├── UnsupportedEncoding  a body in a Content-Encoding that is not supported
    │   ├── TooLarge             a body, an image or a PDF over its limit
    │   ├── CrashesWorker        an input that crashed two workers
    │   ├── SpaceMismatch        the pool serves another vector space than the client requires
    │   └── Invalid              fields that break the schema, each one named
    ├── NotFound                 no such path
    ├── MethodNotAllowed         the path takes other methods
    ├── QueueFull                the pool's queue has no room for the request
    ├── Unavailable              no replica of the pool can take the work now
    ├── TimedOut                 the request's deadline has passed
    └── Internal                 a fault of ours or of a replica, past what retries could mend

`ClientGone` stands outside the tree: nobody is left to read a reply.
"""

from collections.abc import Sequence
from typing import TypedDict


class FieldError(TypedDict):
    """One wrong field: where (`body -> input -> 3 -> image`), what would be right, what came."""

    field: str
    message: str
    type: str
    input: object


class RouterError(Exception):
    """`detail` is a sentence for the client; `retry_after`, in seconds, when a later try may do."""

    def __init__(self, detail: str, *, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after


class AuthError(RouterError):
    """The caller is not known."""


class MissingKey(AuthError):
    """No API key where one is needed."""


class InvalidKey(AuthError):
    """An API key that is none."""


class RateExceeded(RouterError):
    """One of the key's limits; `headers` say what is left where nothing else does."""

    headers: Sequence[tuple[bytes, bytes]] = ()


class RequestRateExceeded(RateExceeded):
    """The key's requests of this minute are used up."""


class TokenRateExceeded(RateExceeded):
    """The key's tokens of this minute are used up."""


class InputError(RouterError):
    """The request is at fault."""


class ModelNotFound(InputError):
    """The model is not one of those served."""


class TokenLimitExceeded(InputError):
    """An input is longer than the context and may not be cut."""


class MediaInvalid(InputError):
    """An image or a PDF that cannot be read."""


class MediaUnreachable(InputError):
    """The address of an image or a PDF that gives none."""


class UnsupportedEncoding(InputError):
    """The Content-Encoding of the body is not supported."""


class TooLarge(InputError):
    """A body, an image or a PDF over its limit."""


class CrashesWorker(InputError):
    """An input that crashed two workers; it is not tried again."""


class SpaceMismatch(InputError):
    """The pool serves another vector space than the client requires."""


class Invalid(InputError):
    """Fields that break the schema; the detail says the first of them and how many there are."""

    def __init__(self, errors: Sequence[FieldError]) -> None:
        first = f"{errors[0]['field']}: {errors[0]['message']}"
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        super().__init__(first + more)
        self.errors = list(errors)

    @classmethod
    def field(cls, field: str, message: str, kind: str, value: object = None) -> "Invalid":
        """One wrong field."""
        return cls([FieldError(field=field, message=message, type=kind, input=shorten(value))])


class NotFound(RouterError):
    """No such path."""


class MethodNotAllowed(RouterError):
    """The path takes other methods."""

    def __init__(self, detail: str, allow: Sequence[str]) -> None:
        super().__init__(detail)
        self.allow = tuple(allow)


class QueueFull(RouterError):
    """The pool's queue has no room for the whole request."""


class Unavailable(RouterError):
    """No replica of the pool can take the work now."""


class TimedOut(RouterError):
    """The request's deadline has passed."""


class Internal(RouterError):
    """A fault of ours or of a replica."""


class ClientGone(Exception):
    """The client has closed its connection."""


TABLE: dict[type[RouterError], tuple[int, str]] = {
    ModelNotFound: (400, "INPUT_MODEL_NOT_FOUND"),
    TokenLimitExceeded: (400, "INPUT_TOKEN_LIMIT_EXCEEDED"),
    MediaInvalid: (400, "INPUT_MEDIA_INVALID"),
    MediaUnreachable: (400, "INPUT_MEDIA_UNREACHABLE"),
    CrashesWorker: (400, "INPUT_CRASHES_WORKER"),
    SpaceMismatch: (412, "VECTOR_SPACE_MISMATCH"),
    MissingKey: (401, "AUTH_MISSING_API_KEY"),
    InvalidKey: (401, "AUTH_INVALID_API_KEY"),
    TooLarge: (413, "INPUT_TOO_LARGE"),
    UnsupportedEncoding: (415, "INPUT_ENCODING_UNSUPPORTED"),
    Invalid: (422, "VALIDATION_ERROR"),
    NotFound: (404, "NOT_FOUND"),
    MethodNotAllowed: (405, "METHOD_NOT_ALLOWED"),
    RequestRateExceeded: (429, "RATE_REQUEST_LIMIT_EXCEEDED"),
    TokenRateExceeded: (429, "RATE_TOKEN_LIMIT_EXCEEDED"),
    QueueFull: (429, "QUEUE_FULL"),
    Unavailable: (503, "SERVICE_UNAVAILABLE"),
    TimedOut: (504, "SERVICE_TIMEOUT"),
    Internal: (500, "INTERNAL_ERROR"),
}


def shorten(value: object, limit: int = 100) -> object:
    """What a client sent, small enough to send back: a string cut, anything nested only described."""
    if isinstance(value, str):
        return value if len(value) <= limit else f"{value[:limit]}… ({len(value)} characters)"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return f"an object with {', '.join(sorted(map(str, value)))[:limit] or 'no fields'}"
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 1 << 53):
        return value
    return str(value)[:limit]
