"""The installed vLLM has every private name that the worker uses."""

import pytest

from workers.plugin.interfaces import missing


def test_vllm_has_all_private_names() -> None:
    assert missing() == []


@pytest.mark.parametrize(
    "name", ["NoClass", "AsyncLLM.no_method", "AsyncLLM.abort(request_id,no_parameter)", "AsyncLLM.abort(x)"]
)
def test_missing_name_is_reported(name: str) -> None:
    assert missing({"vllm.v1.engine.async_llm": ["AsyncLLM.abort(internal)", name]}) == [
        f"vllm.v1.engine.async_llm.{name}"
    ]


def test_missing_module_is_reported() -> None:
    assert missing({"vllm.no_module": ["Name"]}) == ["vllm.no_module.Name"]
