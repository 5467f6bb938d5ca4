"""Content negotiation: which of two media types an `Accept` header prefers (RFC 9110, section 12.5.1)."""

import re

# An unclosed quote ends with the header, which keeps matching linear.
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"?', re.DOTALL)
# Browsers send about ten media ranges. A header of 64 KiB of commas would take 80 ms.
_MOST_RANGES = 64


def prefers(accept: str | None, wanted: str, default: str) -> bool:
    """Whether to send `wanted` rather than `default`, both lower-case media types without parameters.

    The higher quality wins. If they are equal, `wanted` wins only if the header names it, so that `*/*` means
    `default`. A header that accepts neither also means `default`. Parameters other than `q` are ignored.
    """
    if accept is None:
        return False
    qualities = _qualities(accept)
    ours, theirs = _quality(qualities, wanted), _quality(qualities, default)
    return ours > theirs or (ours == theirs > 0 and wanted in qualities)


def _qualities(accept: str) -> dict[str, float]:
    """The quality of each of the first media ranges. Ranges with an invalid quality are ignored."""
    qualities: dict[str, float] = {}
    for part in _QUOTED.sub("", accept.lower()).split(",", _MOST_RANGES)[:_MOST_RANGES]:
        media_range, *parameters = (piece.strip() for piece in part.split(";"))
        given = [value.strip() for name, _, value in (p.partition("=") for p in parameters) if name == "q"]
        try:
            quality = float(given[0]) if given else 1.0
        except ValueError:
            continue
        if 0 <= quality <= 1:
            qualities[media_range] = max(quality, qualities.get(media_range, 0.0))
    return qualities


def _quality(qualities: dict[str, float], media_type: str) -> float:
    """The quality of the most specific range that matches `media_type`, or 0."""
    for media_range in (media_type, f"{media_type.partition('/')[0]}/*", "*/*"):
        if media_range in qualities:
            return qualities[media_range]
    return 0.0
