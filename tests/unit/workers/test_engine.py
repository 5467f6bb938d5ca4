"""How vLLM is started, and how its engine takes several requests in one message."""

import os
from typing import Any

import pytest
import vllm.engine.arg_utils
import vllm.v1.engine.async_llm
from vllm import PoolingParams
from vllm.lora.request import LoRARequest
from vllm.utils.system_utils import get_mp_context
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.engine.core import EngineCoreProc
from vllm.v1.serial_utils import MsgpackDecoder, MsgpackEncoder

from triptych.workers import __main__ as worker
from triptych.workers.plugin import ADD_BATCH, add_batch
from triptych.workers.vllm_engine import Engine


@pytest.mark.parametrize("given", [None, "fork"])
def test_engine_process_is_spawned(given: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stop(Exception): ...

    def args(**_: object) -> None:
        raise Stop(get_mp_context().get_start_method())

    # The engine sets variables; this restores them.
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(vllm.engine.arg_utils, "AsyncEngineArgs", args)
    os.environ.pop("VLLM_WORKER_MULTIPROC_METHOD", None)
    if given:
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = given
    with pytest.raises(Stop, match="spawn"):
        Engine({})


def test_engine_that_cannot_start_is_reported_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("Engine core initialization failed")

    monkeypatch.setattr(os, "environ", os.environ | {"WORKER_MODEL": "a", "WORKER_PORT": "0"})
    monkeypatch.setattr(vllm.v1.engine.async_llm.AsyncLLM, "from_engine_args", fail)
    monkeypatch.setattr(vllm.engine.arg_utils, "AsyncEngineArgs", lambda: None)
    monkeypatch.setattr(worker.logs, "configure", lambda *_: None)
    monkeypatch.setattr(worker, "load", lambda _: Engine({}))
    assert worker.main() == 1
    assert "Engine core initialization failed" in caplog.text
    assert "WORKER_KV_CACHE_GIB" in caplog.text
    assert "Traceback" not in caplog.text


def test_hub_that_does_not_answer_is_no_wrong_setting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    monkeypatch.setattr(os, "environ", os.environ | {"WORKER_MODEL": "org/model", "WORKER_PORT": "0"})
    monkeypatch.setattr(worker.logs, "configure", lambda *_: None)
    # A service manager does not start it again after 78.
    assert worker.main() == 1
    assert "WORKER_MODEL: org/model" in capsys.readouterr().err


class Recorder:
    """The two methods with which vLLM's engine takes a request."""

    def __init__(self) -> None:
        self.added: list[EngineCoreRequest] = []

    def preprocess_add_request(self, request: EngineCoreRequest) -> tuple[EngineCoreRequest, int]:
        return request, request.current_wave

    def add_request(self, request: EngineCoreRequest, wave: int) -> None:
        self.added.append(request)


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
            lora_request=LoRARequest("code", 2, "/models/code") if extra else None,
            cache_salt=None,
            data_parallel_rank=None,
            priority=number,
        )
        for number, extra in enumerate(extras)
    ]


def test_batch_arrives_as_sent() -> None:
    message = MsgpackDecoder().decode(MsgpackEncoder().encode((0, 1, ADD_BATCH, (requests(),))))
    engine = Recorder()
    # How vLLM's engine calls the method that a message names.
    add_batch(engine, *EngineCoreProc._convert_msgspec_args(add_batch, message[3]))
    assert engine.added == requests()


def test_unreadable_request_adds_none() -> None:
    message = MsgpackDecoder().decode(MsgpackEncoder().encode([requests()[0], "no request"]))
    engine = Recorder()
    with pytest.raises(Exception, match="array"):
        add_batch(engine, message)
    assert not engine.added
