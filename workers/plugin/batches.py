"""Many requests to vLLM's engine in one message; runs inside the engine's process."""

from typing import Any

import msgspec

ADD_BATCH = "add_triptych_batch"
"""The name under which the engine is called (`EngineCoreClient.call_utility_async`)."""


def install() -> None:
    """Give vLLM's engine the method."""
    from vllm.v1.engine.core import EngineCore

    # vLLM's own message holds one request, and the engine begins a step with the first while the rest of
    # a batch is on its way: a step for one item costs a third of a step for 32. The engine calls any of
    # its methods by name; this is one more, and none of its own is changed.
    setattr(EngineCore, ADD_BATCH, add_batch)


# `object`: vLLM looks for classes among the annotations, and finds a generic one not to be a class.
def add_batch(engine: Any, batch: object) -> None:
    """Add every request of a batch, which is a list of `EngineCoreRequest` as msgpack has decoded it."""
    from vllm.v1.engine import EngineCoreRequest

    for request in msgspec.convert(batch, list[EngineCoreRequest]):
        engine.add_request(*engine.preprocess_add_request(request))
