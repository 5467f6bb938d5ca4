"""The exceptions of both clients, and the replies that raise them.

    TriptychError
    ├── ConnectionLost           no reply: refused, cut off, or timed out
    ├── ReplyInvalid             the reply does not follow the API
    └── StatusError              a reply with an error status
        ├── InputError               400, 412, 413, 422: the request is wrong
        │   ├── ModelNotFound            no such model is served
        │   ├── TokenLimitExceeded       an input is longer than the context
        │   ├── MediaInvalid             an image or a PDF cannot be read
        │   ├── MediaUnreachable         an image or a PDF cannot be fetched
        │   ├── TooLarge                 a body, an image or a PDF is over its limit
        │   ├── CrashesWorker            an input crashed two workers
        │   ├── SpaceMismatch            the server has another vector space than required
        │   └── Invalid                  fields are invalid; `errors` names each
        ├── AuthError                401
        │   ├── MissingKey               the server needs an API key
        │   └── InvalidKey               the API key is invalid
        ├── NotFound                 404: no such path or model
        ├── Busy                     429: retried
        │   ├── RequestLimitExceeded     the key has no requests left this minute
        │   ├── TokenLimitPerTime        the key has no tokens left this minute
        │   └── QueueFull                the queue is full
        ├── Internal                 500: a fault of the server
        ├── Unavailable              503: no worker can take the work now; retried
        └── TimedOut                 504: not done in time; retried

The code of a reply decides. Without a known code (a proxy's reply, for example) the status decides.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from triptych.router.errors import FieldError


class TriptychError(Exception):
    """Base class: a call failed."""


class ConnectionLost(TriptychError):
    """No reply: the connection was refused, cut off, or timed out."""


class ReplyInvalid(TriptychError):
    """The reply does not follow the API."""


BY_CODE: "dict[str, type[StatusError]]" = {}
BY_STATUS: "dict[int, type[StatusError]]" = {}


class StatusError(TriptychError):
    """A reply with an error status.

    `code` is the API's, or empty if something else than the router answered. `request_id` identifies the
    request in the server's log. `retry_after` is the header. `errors` names the wrong fields of a 422.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        code: str = "",
        request_id: str | None = None,
        retry_after: str | None = None,
        errors: "Sequence[FieldError]" = (),
    ) -> None:
        # The positional arguments, since pickle calls the class with them.
        super().__init__(status, detail)
        self.status = status
        self.detail = detail
        self.code = code
        self.request_id = request_id
        self.retry_after = retry_after
        self.errors: list[FieldError] = list(errors)

    def __str__(self) -> str:
        request = f", request {self.request_id}" if self.request_id else ""
        return f"{self.detail} ({self.status}{f' {self.code}' if self.code else ''}{request})"

    def __init_subclass__(cls, code: str = "", statuses: Sequence[int] = ()) -> None:
        if code:
            BY_CODE[code] = cls
        BY_STATUS.update(dict.fromkeys(statuses, cls))


class InputError(StatusError, statuses=(400, 412)):
    """The request is wrong."""


class ModelNotFound(InputError, code="INPUT_MODEL_NOT_FOUND"):
    """No such model is served."""


class TokenLimitExceeded(InputError, code="INPUT_TOKEN_LIMIT_EXCEEDED"):
    """An input is longer than the context and may not be truncated."""


class MediaInvalid(InputError, code="INPUT_MEDIA_INVALID"):
    """An image or a PDF cannot be read."""


class MediaUnreachable(InputError, code="INPUT_MEDIA_UNREACHABLE"):
    """An image or a PDF cannot be fetched."""


class TooLarge(InputError, code="INPUT_TOO_LARGE", statuses=(413,)):
    """A body, an image or a PDF is over its limit."""


class CrashesWorker(InputError, code="INPUT_CRASHES_WORKER"):
    """An input crashed two workers; the server does not try it again."""


class SpaceMismatch(InputError, code="VECTOR_SPACE_MISMATCH"):
    """The server has another vector space than required."""


class Invalid(InputError, code="VALIDATION_ERROR", statuses=(422,)):
    """Fields are invalid; `errors` names each."""


class AuthError(StatusError, statuses=(401,)):
    """The API key is missing or invalid."""


class MissingKey(AuthError, code="AUTH_MISSING_API_KEY"):
    """The server needs an API key."""


class InvalidKey(AuthError, code="AUTH_INVALID_API_KEY"):
    """The API key is invalid."""


class NotFound(StatusError, code="NOT_FOUND", statuses=(404,)):
    """No such path or model."""


class Busy(StatusError, statuses=(429,)):
    """Too many requests; a later try may succeed."""


class RequestLimitExceeded(Busy, code="RATE_REQUEST_LIMIT_EXCEEDED"):
    """The key has no requests left this minute."""


class TokenLimitPerTime(Busy, code="RATE_TOKEN_LIMIT_EXCEEDED"):
    """The key has no tokens left this minute."""


class QueueFull(Busy, code="QUEUE_FULL"):
    """The queue has no room for the whole request."""


class Internal(StatusError, code="INTERNAL_ERROR", statuses=(500,)):
    """A fault of the server."""


class Unavailable(StatusError, code="SERVICE_UNAVAILABLE", statuses=(503,)):
    """No worker can take the work now."""


class TimedOut(StatusError, code="SERVICE_TIMEOUT", statuses=(504,)):
    """Not done in time."""


def error_class(status: int, code: str) -> type[StatusError]:
    """The exception for a reply with this status and code."""
    return BY_CODE.get(code) or BY_STATUS.get(status, StatusError)
