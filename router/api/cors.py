"""CORS: lets web pages call the API from a browser (https://fetch.spec.whatwg.org/#http-cors-protocol)."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import AfterValidator
from yarl import URL

from triptych.router.api.reply_models import COMMON_HEADERS, EMBEDDING_HEADERS, LIMIT_HEADERS
from triptych.router.http import Header, Reply, Request

ANY = "*"
# Browsers cache a preflight this long; Chromium's limit is two hours.
MAX_AGE_SECONDS = 7200
# Response headers that scripts may read.
EXPOSED = tuple(map(str.lower, (*COMMON_HEADERS, *EMBEDDING_HEADERS, *LIMIT_HEADERS, "retry-after")))

_EXPOSE: Header = (b"access-control-expose-headers", ", ".join(EXPOSED).encode())
_VARY: Header = (b"vary", b"origin")
_PREFLIGHT: tuple[Header, ...] = (
    (b"access-control-allow-methods", b"GET, HEAD, POST"),
    (b"access-control-max-age", b"%d" % MAX_AGE_SECONDS),
)


def _is_origin(value: str) -> str:
    """Refuse a value that no browser sends as `Origin`."""
    if value == ANY:
        return value
    try:
        right = str(URL(value).origin())
        if not re.fullmatch(r"[^\s*]+", right):
            raise ValueError("white space or a wildcard in the host")
    except ValueError:
        raise ValueError(
            f'{value!r} is not an origin; write scheme://host[:port], such as "https://app.example.org"'
        ) from None
    if value != right:
        raise ValueError(f'{value!r} is not an origin as browsers send it; write "{right}"')
    return value


def _any_alone(origins: tuple[str, ...]) -> tuple[str, ...]:
    if ANY in origins and len(origins) > 1:
        raise ValueError('"*" allows every origin; write ["*"] or the origins without it')
    return origins


Origins = Annotated[tuple[Annotated[str, AfterValidator(_is_origin)], ...], AfterValidator(_any_alone)]
"""Origins whose pages may call the API, or "*" alone for all. Empty turns CORS off."""


class Cors:
    """CORS headers and preflight replies for `origins`."""

    def __init__(self, origins: Sequence[str]) -> None:
        self._any = ANY in origins
        self._origins = frozenset(origin.encode() for origin in origins)

    def headers(self, headers: Mapping[bytes, bytes]) -> list[Header]:
        if not self._origins:
            return []
        if self._any:
            return [(b"access-control-allow-origin", b"*"), _EXPOSE]
        origin = headers.get(b"origin", b"")
        # Caches must not mix replies to different origins, or to requests without an origin.
        allowed = [(b"access-control-allow-origin", origin), _EXPOSE] if origin in self._origins else []
        return [*allowed, _VARY]

    def preflight(self, request: Request) -> Reply | None:
        """The reply to a preflight request, or None for other requests.

        Browsers send it without an API key, and list every header that the page sets.
        """
        origin = request.headers.get(b"origin", b"")
        if (
            request.method != "OPTIONS"
            or b"access-control-request-method" not in request.headers
            or not (origin in self._origins or (self._any and origin))
        ):
            return None
        asked = request.headers.get(b"access-control-request-headers", b"")
        allowed: tuple[Header, ...] = ((b"access-control-allow-headers", asked),) if asked else ()
        return Reply(200, b"", b"text/plain", (*_PREFLIGHT, *allowed))
