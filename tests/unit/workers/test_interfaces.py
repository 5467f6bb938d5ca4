"""The installed vLLM has every private name that the worker uses."""

import inspect
from collections.abc import Iterator
from importlib import import_module

import pytest

from triptych.workers.plugin.interfaces import NAMES


def exists(module: str, name: str) -> bool:
    path, _, parameters = name.removesuffix(")").partition("(")
    owner, _, attribute = path.partition(".")
    try:
        found = getattr(import_module(module), owner)
        if attribute and not hasattr(found, attribute):
            # Set in __init__, or declared without a default.
            return attribute in declared(found)
        found = getattr(found, attribute) if attribute else found
        signature = inspect.signature(found).parameters if parameters else {}
    except (ImportError, AttributeError):
        return False
    return all(parameter in signature for parameter in parameters.split(",") if parameter)


def declared(owner: type) -> Iterator[str]:
    """Annotations of a class and its bases, and the attributes that their `__init__` sets."""
    for base in owner.__mro__:
        yield from vars(base).get("__annotations__", {})
        code = getattr(vars(base).get("__init__"), "__code__", None)
        yield from code.co_names if code else ()


@pytest.mark.parametrize(("module", "name"), [(module, name) for module in NAMES for name in NAMES[module]])
def test_vllm_has_private_name(module: str, name: str) -> None:
    assert exists(module, name)


@pytest.mark.parametrize("name", ["NoClass", "AsyncLLM.no_method", "AsyncLLM.abort(request_id,no_parameter)"])
def test_missing_name_is_found(name: str) -> None:
    assert not exists("vllm.v1.engine.async_llm", name)
    assert not exists("vllm.no_module", name)
