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
        request = f", request {request_id}" if request_id else ""
        super().__init__(f"{detail} ({status}{f' {code}' if code else ''}{request})")
        self.status = status
        self.detail = detail
        self.code = code
        self.request_id = request_id
        self.retry_after = retry_after
        self.errors: list[FieldError] = list(errors)


class InputError(StatusError):
    """The request is wrong."""


class ModelNotFound(InputError):
    """No such model is served."""


class TokenLimitExceeded(InputError):
    """An input is longer than the context and may not be truncated."""


class MediaInvalid(InputError):
    """An image or a PDF cannot be read."""


class MediaUnreachable(InputError):
    """An image or a PDF cannot be fetched."""


class TooLarge(InputError):
    """A body, an image or a PDF is over its limit."""


class CrashesWorker(InputError):
    """An input crashed two workers; the server does not try it again."""


class SpaceMismatch(InputError):
    """The server has another vector space than required."""


class Invalid(InputError):
    """Fields are invalid; `errors` names each."""


class AuthError(StatusError):
    """The API key is missing or invalid."""


class MissingKey(AuthError):
    """The server needs an API key."""


class InvalidKey(AuthError):
    """The API key is invalid."""


class NotFound(StatusError):
    """No such path or model."""


class Busy(StatusError):
    """Too many requests; a later try may succeed."""


class RequestLimitExceeded(Busy):
    """The key has no requests left this minute."""


class TokenLimitPerTime(Busy):
    """The key has no tokens left this minute."""


class QueueFull(Busy):
    """The queue has no room for the whole request."""


class Internal(StatusError):
    """A fault of the server."""


class Unavailable(StatusError):
    """No worker can take the work now."""


class TimedOut(StatusError):
    """Not done in time."""


BY_CODE: dict[str, type[StatusError]] = {
    "INPUT_MODEL_NOT_FOUND": ModelNotFound,
    "INPUT_TOKEN_LIMIT_EXCEEDED": TokenLimitExceeded,
    "INPUT_MEDIA_INVALID": MediaInvalid,
    "INPUT_MEDIA_UNREACHABLE": MediaUnreachable,
    "AUTH_MISSING_API_KEY": MissingKey,
    "AUTH_INVALID_API_KEY": InvalidKey,
    "NOT_FOUND": NotFound,
    "INPUT_TOO_LARGE": TooLarge,
    "INPUT_CRASHES_WORKER": CrashesWorker,
    "VECTOR_SPACE_MISMATCH": SpaceMismatch,
    "VALIDATION_ERROR": Invalid,
    "RATE_REQUEST_LIMIT_EXCEEDED": RequestLimitExceeded,
    "RATE_TOKEN_LIMIT_EXCEEDED": TokenLimitPerTime,
    "QUEUE_FULL": QueueFull,
    "INTERNAL_ERROR": Internal,
    "SERVICE_UNAVAILABLE": Unavailable,
    "SERVICE_TIMEOUT": TimedOut,
}
BY_STATUS: dict[int, type[StatusError]] = {
    400: InputError,
    401: AuthError,
    404: NotFound,
    412: InputError,
    413: TooLarge,
    422: Invalid,
    429: Busy,
    500: Internal,
    503: Unavailable,
    504: TimedOut,
}


def error_class(status: int, code: str) -> type[StatusError]:
    """The exception for a reply with this status and code."""
    return BY_CODE.get(code) or BY_STATUS.get(status, StatusError)
