"""Which requests are traced, whatever their `traceparent` says, and how tracing ends."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.fakes.hang_guard import GUARD_SECONDS, hang_guard
from triptych.router.http import Request
from triptych.router.memory import Budget
from triptych.router.observe.tracing import Tracing
from triptych.workers.shared import otel
from triptych.workers.shared.otel import Otel

TRACE = "0af7651916cd43dd8448eb211c80319c"
# Ratio samplers of OpenTelemetry sample the trace ids whose last half is small.
SMALL = "0af7651916cd43dd0000000000000001"
LARGE = "0af7651916cd43ddffffffffffffffff"
CALLER = "b7ad6b7169203331"


@contextmanager
def tracing(sampler: str, share: str, *, trust: bool) -> Iterator[Tracing]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_TRACES_SAMPLER", sampler)
        patch.setenv("OTEL_TRACES_SAMPLER_ARG", share)
        yield Tracing(Otel("router"), trust)


def request(trace: str, flags: str) -> Request:
    headers = [(b"traceparent", f"00-{trace}-{CALLER}-{flags}".encode()), (b"tracestate", b"a=b")]
    scope = {"type": "http", "method": "POST", "path": "/v1/embeddings", "headers": headers}

    async def receive() -> dict[str, object]:
        raise AssertionError

    return Request(scope, receive, Budget(1))


@pytest.mark.parametrize("sampler", ["traceidratio", "parentbased_traceidratio"])
@pytest.mark.parametrize("trace", [SMALL, LARGE])
@pytest.mark.parametrize("flags", ["00", "01"])
@pytest.mark.parametrize(("share", "sampled"), [("0", False), ("1", True)])
def test_client_decides_no_sampling(sampler: str, trace: str, flags: str, share: str, sampled: bool) -> None:
    with tracing(sampler, share, trust=False) as ours:
        span = ours.request(request(trace, flags), "/v1/embeddings")
    context = span.get_span_context()
    assert context.trace_flags.sampled == span.is_recording() == sampled
    assert f"{context.trace_id:032x}" == trace
    assert context.trace_state.get("a") == "b"


def test_trace_id_does_not_decide() -> None:
    with tracing("traceidratio", "0.5", trust=False) as ours:
        spans = [ours.request(request(trace, "01"), "/") for trace in (SMALL, LARGE) for _ in range(200)]
    for half in (spans[:200], spans[200:]):
        assert {span.is_recording() for span in half} == {True, False}


@pytest.mark.parametrize(("flags", "sampled"), [("00", False), ("01", True)])
def test_trusted_traceparent_decides(flags: str, sampled: bool) -> None:
    with tracing("parentbased_traceidratio", "0.5", trust=True) as ours:
        span = ours.request(request(TRACE, flags), "/v1/embeddings")
    assert span.is_recording() == sampled


async def test_silent_collector_does_not_hold_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otel, "FLUSH_SECONDS", 0.01)
    answered = threading.Event()
    tracing = Otel("router")
    monkeypatch.setattr(tracing._provider, "shutdown", lambda: answered.wait(GUARD_SECONDS))
    async with hang_guard():
        await tracing.close()
    answered.set()
