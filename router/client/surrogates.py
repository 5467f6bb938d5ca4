"""Replaces lone surrogates in strings, which UTF-8 cannot encode."""

from typing import Any


def without_lone_surrogates(value: Any) -> Any:
    """`value` with U+FFFD for each lone surrogate in its strings. A pair becomes its character."""
    match value:
        case str():
            return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        case dict():
            return {without_lone_surrogates(key): without_lone_surrogates(v) for key, v in value.items()}
        case list() | tuple():
            return [without_lone_surrogates(part) for part in value]
        case _:
            return value
