"""LoRA on a CPU against its definition, for any mix of adapters in a step."""

import multiprocessing
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vllm.lora.layers import LoRAMapping
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.platforms import current_platform
from vllm.v1.engine.core import EngineCore

from triptych.workers import plugin
from triptych.workers.plugin import cpu_adapters
from triptych.workers.plugin.cpu_adapters import SHORTEST_RUN, add_lora_linear

ADAPTERS, RANK, INPUTS, SLICES = 3, 4, 10, (6, 2, 5)


class Patched(PunicaWrapperCPU):
    """vLLM's wrapper with ours inside."""


cpu_adapters.install(Patched)


def matrices() -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    torch.manual_seed(0)
    a = tuple(torch.randn(ADAPTERS, 1, RANK, INPUTS) for _ in SLICES)
    return a, tuple(torch.randn(ADAPTERS, 1, size, RANK) for size in SLICES)


def expected(x: torch.Tensor, y: torch.Tensor, slots: list[int], scale: float) -> torch.Tensor:
    """By definition, token by token, in float64."""
    a, b = matrices()
    rows = []
    for row, slot in enumerate(slots):
        added = [
            scale * (two[slot, 0].double() @ (one[slot, 0].double() @ x[row].double()))
            for one, two in zip(a, b, strict=True)
        ]
        rows.append(y[row].double() + (torch.cat(added) if slot >= 0 else 0))
    return torch.stack(rows)


def runs() -> st.SearchStrategy[list[tuple[int, int]]]:
    """Slot and length of each run of tokens with one adapter."""
    return st.lists(
        st.tuples(st.integers(-1, ADAPTERS - 1), st.integers(1, 2 * SHORTEST_RUN)), min_size=1, max_size=8
    )


@settings(max_examples=60, deadline=None)
@given(runs=runs(), scale=st.sampled_from([1.0, 0.5]))
def test_each_token_gets_its_adapter(runs: list[tuple[int, int]], scale: float) -> None:
    slots = [slot for slot, length in runs for _ in range(length)]
    x, y = torch.randn(len(slots), INPUTS), torch.randn(len(slots), sum(SLICES))
    right = expected(x, y, slots, scale)
    wrapper = Patched(2 * SHORTEST_RUN * 8, 8, "cpu")
    ids = [7, 8, 9]
    named = tuple(0 if slot < 0 else ids[slot] for slot in slots)
    wrapper.update_metadata(LoRAMapping(named, named[:1], is_prefill=True), ids, ADAPTERS, 100)
    wrapper.add_lora_linear(y, x, *matrices(), scale, SLICES)
    torch.testing.assert_close(y.double(), right, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows", [slice(0, 5), torch.arange(5)])
def test_columns_beside_the_slices_stay(rows: Any) -> None:
    x, y = torch.randn(5, INPUTS), torch.zeros(5, sum(SLICES) + 3)
    add_lora_linear(SimpleNamespace(triptych_rows=[(0, rows)]), y, x, *matrices(), 1.0, SLICES)
    assert y[:, : sum(SLICES)].any()
    assert not y[:, sum(SLICES) :].any()


@pytest.mark.parametrize("cpu", [True, False])
def test_engine_processes_on_a_cpu_have_it(cpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    installed: list[Any] = []
    monkeypatch.setattr(cpu_adapters, "install", installed.append)
    monkeypatch.setattr(type(current_platform), "is_cpu", lambda _: cpu)
    monkeypatch.setattr(multiprocessing, "parent_process", object)
    monkeypatch.setenv(plugin.DIE_WITH_WORKER, "1")
    monkeypatch.setattr(plugin, "die_with_parent", lambda: None)
    monkeypatch.setattr(plugin.engine_steps, "install", lambda _: None)
    monkeypatch.setattr(EngineCore, plugin.ADD_BATCH, None, raising=False)
    plugin.register()
    assert installed == [PunicaWrapperCPU] * cpu
