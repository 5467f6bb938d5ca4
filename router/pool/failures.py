"""Maps a worker's failure of an item to the error that its client reads."""

from triptych.router.errors import Internal, Invalid, MediaInvalid, RouterError, TokenLimitExceeded
from triptych.router.items import Item
from triptych.workers.shared import contract

MOST_CHARACTERS = 2000


def client_error(item: Item, failure: contract.Failure) -> RouterError:
    """What the client reads of an item's own failure."""
    field = item.query.field if failure.query and item.query else item.field
    message = failure.message[:MOST_CHARACTERS]
    detail = f"{field}: {message}"
    match failure.code:
        case "token_limit":
            return TokenLimitExceeded(detail)
        case "media_invalid":
            return MediaInvalid(detail)
        case "unsupported" | "invalid":
            return Invalid.field(field, message, failure.code)
        case _:
            return Internal(detail)
