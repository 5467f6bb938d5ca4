"""What one request wants of the pooler; written by the worker, read inside the engine."""

from dataclasses import dataclass
from typing import Any

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class PoolingSpec:
    """`spans` are [start, end) in token positions, negative ones counted from the prompt's end."""

    spans: tuple[Span, ...] = ()
    dimensions: int | None = None
    normalized: bool = True
    multivector: bool = False

    def to_kwargs(self) -> dict[str, Any] | None:
        """`PoolingParams.extra_kwargs`: only what differs from a plain text, None for a plain text."""
        kwargs: dict[str, Any] = {}
        if self.spans:
            kwargs["spans"] = [list(span) for span in self.spans]
        if self.dimensions is not None:
            kwargs["dimensions"] = self.dimensions
        if not self.normalized:
            kwargs["normalized"] = False
        if self.multivector:
            kwargs["multivector"] = True
        return kwargs or None

    @classmethod
    def from_kwargs(cls, kwargs: dict[str, Any] | None) -> "PoolingSpec":
        """The inverse of `to_kwargs`."""
        if not kwargs:
            return _PLAIN
        spans = tuple((start, end) for start, end in kwargs.get("spans", ()))
        return cls(
            spans,
            kwargs.get("dimensions"),
            kwargs.get("normalized", True),
            kwargs.get("multivector", False),
        )

    def resolve(self, prompt_length: int) -> list[Span]:
        """The spans as positions in a prompt of that length; the whole prompt where none is named."""
        if not self.spans:
            return [(0, prompt_length)]
        return [
            (start if start >= 0 else prompt_length + start, end if end >= 0 else prompt_length + end)
            for start, end in self.spans
        ]


_PLAIN = PoolingSpec()
