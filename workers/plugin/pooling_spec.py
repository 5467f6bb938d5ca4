"""Pooling request of one prompt: written by the worker, read by the pooler inside the engine."""

from typing import Any, Literal

import msgspec

Span = tuple[int, int]
Pooling = Literal["mean", "last"]


class PoolingSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """`spans` are [start, end) in token positions; negative positions count from the end of the prompt.

    Each span gives one mean; without spans, the model's own pooling applies. `dimensions` cuts each mean
    before it is normalized. `multivector` gives one projected, normalized vector per token instead, by the
    projector of `adapter` if the engine holds several.
    """

    spans: tuple[Span, ...] = ()
    dimensions: int | None = None
    normalized: bool = True
    multivector: bool = False
    adapter: str | None = None

    def to_kwargs(self) -> dict[str, Any] | None:
        """`PoolingParams.extra_kwargs`: the fields that differ from the defaults, None if all are equal."""
        return msgspec.to_builtins(self) or None

    @classmethod
    def from_kwargs(cls, kwargs: dict[str, Any] | None) -> "PoolingSpec":
        return msgspec.convert(kwargs, cls) if kwargs else _PLAIN

    def resolve(self, prompt_length: int, pooling: Pooling) -> list[Span]:
        """The spans as positions in a prompt of that length; without any, the span of the model's pooling."""
        if not self.spans:
            return [(prompt_length - 1 if pooling == "last" else 0, prompt_length)]
        return [
            (start if start >= 0 else prompt_length + start, end if end >= 0 else prompt_length + end)
            for start, end in self.spans
        ]


_PLAIN = PoolingSpec()
