"""How vLLM is started, as far as that can be seen without an engine."""

import os

import pytest
import vllm.engine.arg_utils
from vllm.utils.system_utils import get_mp_context

from workers.llm import Llm


class Stop(Exception):
    """Ends the start where a test has seen enough."""


@pytest.mark.parametrize("given", [None, "fork"])
def test_the_engine_is_spawned_on_every_platform(given: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def args(**_: object) -> None:
        raise Stop(get_mp_context().get_start_method())

    # Whatever is set during the test is taken back.
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(vllm.engine.arg_utils, "AsyncEngineArgs", args)
    os.environ.pop("VLLM_WORKER_MULTIPROC_METHOD", None)
    if given:
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = given
    with pytest.raises(Stop, match="spawn"):
        Llm({})
