"""Everything that can go wrong with a request, and the reply each error makes.

    RouterError
    ├── AuthError
    │   ├── MissingKey           no API key was sent
    │   └── InvalidKey           the API key is invalid
    ├── RateExceeded
    │   ├── RequestRateExceeded  the key has no requests left this minute
    │   └── TokenRateExceeded    the key has no tokens left this minute
    ├── InputError
    │   ├── ModelNotFound        no such model is served
    │   ├── TokenLimitExceeded   an input is longer than the context and may not be truncated
    │   ├── MediaInvalid         an image or a PDF cannot be read
    │   ├── MediaUnreachable     an image or a PDF cannot be fetched
    │   ├── UnsupportedEncoding  the Content-Encoding of the body is not supported
    │   ├── TooLarge             a body, an image or a PDF is over its limit
    │   ├── CrashesWorker        an input crashed two workers
    │   ├── SpaceMismatch        the pool serves another vector space than the client requires
    │   └── Invalid              fields break the schema; each one is named
    ├── NotFound                 no such path
    ├── MethodNotAllowed         the path takes other methods
    ├── QueueFull                no room for the request in the pool's queue or in memory
    ├── Unavailable              no replica of the pool can take the work now
    ├── TimedOut                 the request's deadline has passed
    └── Internal                 the router or a replica failed, and retries did not help

`ClientGone` is outside the tree: no reply is sent to a client that has left.
"""

import math
import random
from collections.abc import Mapping, Sequence
from typing import ClassVar, TypedDict

# Retry-After is longer by up to this part of itself, so that refused clients do not come back together.
JITTER = 0.5
# Retry-After where nothing says how long it will take.
UNAVAILABLE_SECONDS = 2

_Header = tuple[bytes, bytes]


class FieldError(TypedDict):
    """One wrong field: its path (`body -> input -> 3 -> image`), what is allowed, what was sent."""

    field: str
    message: str
    type: str
    input: object


class RouterError(Exception):
    """An error with an HTTP `status` and a `code` that clients can test.

    `detail` is a sentence for the client; `retry_after`, in seconds, is set when a later try may succeed. Its
    header has jitter. `own_headers` and `fields` are those that no other kind of error has.
    """

    status: ClassVar[int]
    code: ClassVar[str]
    retry_after: int | None = None
    own_headers: tuple[_Header, ...] = ()
    fields: Mapping[str, object] = {}

    def __init__(self, detail: str, *, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        if retry_after is not None:
            self.retry_after = retry_after

    @property
    def headers(self) -> tuple[_Header, ...]:
        """Headers of the reply besides the common ones."""
        if self.retry_after is None:
            return self.own_headers
        seconds = with_jitter(self.retry_after, random.random())
        return (b"retry-after", b"%d" % seconds), *self.own_headers


class AuthError(RouterError):
    """The caller is not known."""

    status = 401
    own_headers = ((b"www-authenticate", b"Bearer"),)


class MissingKey(AuthError):
    """No API key was sent."""

    code = "AUTH_MISSING_API_KEY"


class InvalidKey(AuthError):
    """The API key is invalid."""

    code = "AUTH_INVALID_API_KEY"


class RateExceeded(RouterError):
    """The key is over one of its limits."""

    status = 429


class RequestRateExceeded(RateExceeded):
    """The key has no requests left this minute."""

    code = "RATE_REQUEST_LIMIT_EXCEEDED"


class TokenRateExceeded(RateExceeded):
    """The key has no tokens left this minute."""

    code = "RATE_TOKEN_LIMIT_EXCEEDED"


class InputError(RouterError):
    """The request is at fault."""

    status = 400


class ModelNotFound(InputError):
    """No such model is served."""

    code = "INPUT_MODEL_NOT_FOUND"


class TokenLimitExceeded(InputError):
    """An input is longer than the context and may not be truncated."""

    code = "INPUT_TOKEN_LIMIT_EXCEEDED"


class MediaInvalid(InputError):
    """An image or a PDF cannot be read."""

    code = "INPUT_MEDIA_INVALID"


class MediaUnreachable(InputError):
    """An image or a PDF cannot be fetched."""

    code = "INPUT_MEDIA_UNREACHABLE"


class UnsupportedEncoding(InputError):
    """The Content-Encoding of the body is not supported."""

    status = 415
    code = "INPUT_ENCODING_UNSUPPORTED"
    own_headers = ((b"accept-encoding", b"gzip, deflate"),)


class TooLarge(InputError):
    """A body, an image or a PDF is over its limit."""

    status = 413
    code = "INPUT_TOO_LARGE"


class CrashesWorker(InputError):
    """An input crashed two workers; it is not tried again."""

    code = "INPUT_CRASHES_WORKER"


class SpaceMismatch(InputError):
    """The pool serves another vector space than the client requires."""

    status = 412
    code = "VECTOR_SPACE_MISMATCH"


class Invalid(InputError):
    """Fields break the schema. The detail names the first of them and says how many there are."""

    status = 422
    code = "VALIDATION_ERROR"

    def __init__(self, errors: Sequence[FieldError]) -> None:
        first = f"{errors[0]['field']}: {errors[0]['message']}"
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        super().__init__(first + more)
        self.errors = list(errors)
        self.fields = {"errors": self.errors}

    @classmethod
    def field(cls, field: str, message: str, kind: str, value: object = None) -> "Invalid":
        """One wrong field."""
        return cls([FieldError(field=field, message=message, type=kind, input=shorten(value))])


class NotFound(RouterError):
    """No such path."""

    status = 404
    code = "NOT_FOUND"


class MethodNotAllowed(RouterError):
    """The path takes other methods."""

    status = 405
    code = "METHOD_NOT_ALLOWED"

    def __init__(self, detail: str, allow: Sequence[str]) -> None:
        super().__init__(detail)
        self.own_headers = ((b"allow", ", ".join(allow).encode()),)


class QueueFull(RouterError):
    """There is no room for the whole request in the pool's queue, or in the router's memory."""

    status = 429
    code = "QUEUE_FULL"


class Unavailable(RouterError):
    """No replica of the pool can take the work now."""

    status = 503
    code = "SERVICE_UNAVAILABLE"
    retry_after = UNAVAILABLE_SECONDS


class TimedOut(RouterError):
    """The request's deadline has passed."""

    status = 504
    code = "SERVICE_TIMEOUT"


class Internal(RouterError):
    """The router or a replica failed."""

    status = 500
    code = "INTERNAL_ERROR"


class ClientGone(Exception):
    """The client has closed its connection."""


def with_jitter(seconds: int, chance: float) -> int:
    """`seconds` and up to `JITTER` of them, by `chance` from 0 to 1 (exclusive), never less."""
    return seconds + math.floor(chance * (1 + JITTER * seconds))


def all_errors(kind: type[RouterError] = RouterError) -> list[type[RouterError]]:
    """Every error that a reply may be, in the order of the tree."""
    below = [error for each in kind.__subclasses__() for error in all_errors(each)]
    return below or [kind]


def shorten(value: object, limit: int = 100) -> object:
    """A value from a client, small enough to send back: strings are cut, containers described."""
    if isinstance(value, str):
        return value if len(value) <= limit else f"{value[:limit]}… ({len(value)} characters)"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return f"an object with {', '.join(sorted(map(str, value)))[:limit] or 'no fields'}"
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 1 << 53):
        return value
    return str(value)[:limit]
