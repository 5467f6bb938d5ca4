"""LoRA on a CPU: one product for each adapter of a step. Runs inside the engine's process.

vLLM copies an adapter's matrices for each token, which makes a text of 512 tokens four times slower. This
replaces `add_lora_linear` of its CPU kernels, and wraps `update_metadata`, which vLLM calls before a step.
GPUs have kernels of their own.
"""

from itertools import accumulate, pairwise
from typing import Any

import torch
from torch.nn.functional import linear

Rows = slice | torch.Tensor

# Products of fewer rows than this on average take longer than copying the rows of an adapter together
# (measured for 21 and 512 tokens, hidden sizes 64 to 11,008).
SHORTEST_RUN = 64


def rows_of_adapters(slots: list[int], lengths: list[int]) -> list[tuple[int, Rows]]:
    """The rows of each adapter, by its slot; those of slot -1, without an adapter, are left out.

    `slots` and `lengths` are the runs of tokens with the same adapter. Long runs stay apart, without a copy.
    """
    bounds = list(pairwise(accumulate(lengths, initial=0)))
    runs = [(slot, start, end) for slot, (start, end) in zip(slots, bounds, strict=True) if slot >= 0]
    if sum(lengths) >= SHORTEST_RUN * len(lengths) or len(runs) == 1:
        return [(slot, slice(start, end)) for slot, start, end in runs]
    of_slots: dict[int, list[torch.Tensor]] = {}
    for slot, start, end in runs:
        of_slots.setdefault(slot, []).append(torch.arange(start, end))
    return [(slot, torch.cat(parts)) for slot, parts in of_slots.items()]


def add_lora_linear(
    wrapper: Any,
    y: torch.Tensor,
    x: torch.Tensor,
    lora_a_stacked: tuple[torch.Tensor, ...],
    lora_b_stacked: tuple[torch.Tensor, ...],
    scale: float,
    output_slices: tuple[int, ...],
    **_: Any,
) -> None:
    """Add `scale * x A B` of each row's adapter to `y` [tokens, outputs].

    `x` is [tokens, inputs]. Each of `output_slices` columns of `y` has an A [adapters, 1, r, inputs] and a B
    [adapters, 1, outputs, r].
    """
    x, y = x.view(-1, x.shape[-1]), y.view(-1, y.shape[-1])
    columns = list(pairwise(accumulate(output_slices, initial=0)))
    for slot, rows in wrapper.triptych_rows:
        pairs = [(a[slot, 0], b[slot, 0]) for a, b in zip(lora_a_stacked, lora_b_stacked, strict=True)]
        if isinstance(rows, slice):
            for (a, b), (start, end) in zip(pairs, columns, strict=True):
                y[rows, start:end].addmm_(linear(x[rows], a), b.t(), alpha=scale)
        else:
            part = x.index_select(0, rows)
            added = torch.cat([linear(linear(part, a), b) for a, b in pairs], dim=1)
            y[:, : added.shape[1]].index_add_(0, rows, added, alpha=scale)


def install(wrapper_class: Any) -> None:
    update = wrapper_class.update_metadata

    def update_metadata(wrapper: Any, *arguments: Any, **options: Any) -> None:
        update(wrapper, *arguments, **options)
        _, lengths, slots, *_ = wrapper.prefill_metadata
        wrapper.triptych_rows = rows_of_adapters(slots.tolist(), lengths.tolist())

    wrapper_class.update_metadata = update_metadata
    wrapper_class.add_lora_linear = add_lora_linear
