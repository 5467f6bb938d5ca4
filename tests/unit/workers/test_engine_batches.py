"""Several requests in one message, as vLLM's engine decodes and adds them."""

from typing import Any

import pytest
from vllm import PoolingParams
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.engine.core import EngineCore, EngineCoreProc
from vllm.v1.serial_utils import MsgpackDecoder, MsgpackEncoder

from workers.plugin.batches import ADD_BATCH, add_batch, install


class Recorder:
    """An engine's two steps of taking a request."""

    def __init__(self) -> None:
        self.added: list[tuple[EngineCoreRequest, int]] = []

    def preprocess_add_request(self, request: EngineCoreRequest) -> tuple[EngineCoreRequest, int]:
        return request, request.current_wave

    def add_request(self, request: EngineCoreRequest, wave: int) -> None:
        self.added.append((request, wave))


def requests() -> list[EngineCoreRequest]:
    extras: list[dict[str, Any] | None] = [None, {"spans": [[0, 3], [3, 5]], "normalized": False}]
    return [
        EngineCoreRequest(
            request_id=f"r{number}",
            external_req_id=f"r{number}",
            prompt_token_ids=[7, 8, 9, 10, number],
            mm_features=None,
            sampling_params=None,
            pooling_params=PoolingParams(task="embed", extra_kwargs=extra),
            arrival_time=1.5,
            lora_request=None,
            cache_salt=None,
            data_parallel_rank=None,
            priority=number,
        )
        for number, extra in enumerate(extras)
    ]


def test_every_request_of_a_batch_arrives_as_it_was_sent() -> None:
    message = MsgpackDecoder().decode(MsgpackEncoder().encode((0, 1, ADD_BATCH, (requests(),))))
    engine = Recorder()
    # As vLLM's engine calls what a message names.
    add_batch(engine, *EngineCoreProc._convert_msgspec_args(add_batch, message[3]))
    assert [request for request, _ in engine.added] == requests()


def test_nothing_of_a_batch_is_added_when_a_part_cannot_be_read() -> None:
    message = MsgpackDecoder().decode(MsgpackEncoder().encode([requests()[0], "no request"]))
    engine = Recorder()
    with pytest.raises(Exception, match="array"):
        add_batch(engine, message)
    assert not engine.added


def test_the_method_is_there_under_its_name_and_shadows_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(EngineCore, ADD_BATCH, raising=False)
    assert not hasattr(EngineCoreProc, ADD_BATCH)
    install()
    assert getattr(EngineCoreProc, ADD_BATCH) is add_batch
