"""Everything the clients raise, and which reply raises what: changes when API.md's table of errors does.

    TriptychError
    ├── ConnectionLost           no reply: refused, cut off, or silent past the timeout
    ├── ReplyInvalid             a reply that is not what the API promises
    └── StatusError              a reply that says no, and has a status
        ├── InputError               400, 412, 413, 422: the request is at fault
        │   ├── ModelNotFound            the model is not one of those served
        │   ├── TokenLimitExceeded       an input is longer than the context and may not be cut
        │   ├── MediaInvalid             an image or a PDF that is not one
        │   ├── MediaUnreachable         an address that gives no image
        │   ├── TooLarge                 a body, an image or a PDF over its limit
        │   ├── CrashesWorker            an input that crashed two workers
        │   ├── SpaceMismatch            the server has another vector space than is required
        │   └── Invalid                  fields that break the schema; `errors` names each
        ├── AuthError                401
        │   ├── MissingKey               the server wants an API key
        │   └── InvalidKey               the API key is not one of the server's
        ├── NotFound                 404: no such path or model
        ├── Busy                     429: tried again
        │   ├── RequestLimitExceeded     too many requests in the time
        │   ├── TokenLimitPerTime        too many tokens in the time
        │   └── QueueFull                the queue has no room
        ├── Internal                 500: a fault of the server
        ├── Unavailable              503: nothing can take the work now; tried again
        └── TimedOut                 504: not done in time; tried again

The code of a reply decides. A reply without one that is known here (a proxy's, say) goes by its status.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from router.errors import FieldError


class TriptychError(Exception):
    """A call that did not give what was asked for."""


class ConnectionLost(TriptychError):
    """No reply: refused, cut off, or silent past the timeout."""


class ReplyInvalid(TriptychError):
    """A reply that is not what the API promises."""


class StatusError(TriptychError):
    """A reply that says no.

    `code` is API.md's, empty when something else than the router answered; `request_id` finds the request in
    the server's log; `retry_after` is the header as it came; `errors` names the wrong fields of a 422.
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
    """The request is at fault."""


class ModelNotFound(InputError):
    """The model is not one of those served."""


class TokenLimitExceeded(InputError):
    """An input is longer than the context and may not be cut."""


class MediaInvalid(InputError):
    """An image or a PDF that is not one."""


class MediaUnreachable(InputError):
    """An address that gives no image."""


class TooLarge(InputError):
    """A body, an image or a PDF over its limit."""


class CrashesWorker(InputError):
    """An input that crashed two workers; the server does not try it again."""


class SpaceMismatch(InputError):
    """The server has another vector space than is required."""


class Invalid(InputError):
    """Fields that break the schema."""


class AuthError(StatusError):
    """The API key is at fault."""


class MissingKey(AuthError):
    """The server wants an API key."""


class InvalidKey(AuthError):
    """The API key is not one of the server's."""


class NotFound(StatusError):
    """No such path or model."""


class Busy(StatusError):
    """Too much at once; a later try may do."""


class RequestLimitExceeded(Busy):
    """Too many requests in the time."""


class TokenLimitPerTime(Busy):
    """Too many tokens in the time."""


class QueueFull(Busy):
    """The queue has no room for the whole request."""


class Internal(StatusError):
    """A fault of the server."""


class Unavailable(StatusError):
    """Nothing can take the work now."""


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
    """What a reply with this status and code raises."""
    return BY_CODE.get(code) or BY_STATUS.get(status, StatusError)
