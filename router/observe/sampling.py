"""Trace sampling that clients cannot influence. Import it only when tracing is on.

OpenTelemetry's own samplers follow the `sampled` flag of a `traceparent`, or compute from its trace id.
Clients choose both.
"""

from typing import Any

import opentelemetry.sdk.trace as sdk
from opentelemetry.context import Context
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ParentBased, Sampler, SamplingResult
from opentelemetry.trace import Tracer, get_current_span


def sample_unforced(tracer: Tracer) -> None:
    """Have the sampler of `tracer` decide about each request as about a new trace.

    The other spans of the request follow.
    """
    assert isinstance(tracer, sdk.Tracer)
    own = _Unforced(tracer.sampler)
    tracer.sampler = ParentBased(own, remote_parent_sampled=own, remote_parent_not_sampled=own)


class _Unforced(Sampler):
    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self._new_trace_id = RandomIdGenerator().generate_trace_id

    def should_sample(
        self, parent_context: Context | None, trace_id: int, *span: Any, **more: Any
    ) -> SamplingResult:
        result = self._sampler.should_sample(Context(), self._new_trace_id(), *span, **more)
        parents = get_current_span(parent_context).get_span_context().trace_state
        return SamplingResult(result.decision, result.attributes, parents)

    def get_description(self) -> str:
        return f"Unforced{{{self._sampler.get_description()}}}"
