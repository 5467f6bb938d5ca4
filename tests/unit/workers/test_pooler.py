"""The model inside the engine: the pooler against the definition of each output, and positions."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vllm import PoolingParams
from vllm.model_executor.models.qwen2_5_vl import Qwen2_5_VLForConditionalGeneration
from vllm.v1.pool.metadata import PoolingMetadata, PoolingStates

from triptych.workers.plugin.image_models import TriptychEmbeddings
from triptych.workers.plugin.pooler import MERGED, SpanPooler
from triptych.workers.plugin.pooling_spec import PoolingSpec

HIDDEN, PROJECTED = 12, 5
ADAPTERS = ("one", "two")


@dataclass
class Request:
    """A prompt's hidden states [tokens, h], its pooling, and how many tokens are prefilled."""

    states: torch.Tensor
    spec: PoolingSpec
    done: int = 0
    kept: PoolingStates = field(default_factory=PoolingStates)

    @property
    def length(self) -> int:
        return len(self.states)


@pytest.fixture(scope="module", params=["mean", "last"])
def pooler(request: pytest.FixtureRequest) -> SpanPooler:
    torch.manual_seed(0)
    return SpanPooler(HIDDEN, PROJECTED, request.param, (MERGED, *ADAPTERS))


def step(pooler: SpanPooler, requests: list[Request], chunks: list[int]) -> list[torch.Tensor | None]:
    """One engine step with the next `chunks[i]` tokens of each request; outputs of finished requests."""
    rows = [r.states[r.done : r.done + chunk] for r, chunk in zip(requests, chunks, strict=True)]
    for request, chunk in zip(requests, chunks, strict=True):
        request.done += chunk
    metadata = PoolingMetadata(
        prompt_lens=torch.tensor([request.length for request in requests]),
        prompt_token_ids=None,
        prompt_token_ids_cpu=None,
        pooling_params=[
            PoolingParams(task="embed", extra_kwargs=request.spec.to_kwargs()) for request in requests
        ],
        pooling_states=[request.kept for request in requests],
    )
    metadata.build_pooling_cursor(
        np.array(chunks), torch.tensor([request.done for request in requests]), torch.device("cpu")
    )
    with torch.inference_mode():
        outputs = pooler(torch.cat(rows), metadata)
    return [
        output if request.done == request.length else None
        for request, output in zip(requests, outputs, strict=True)
    ]


def expected(pooler: SpanPooler, request: Request) -> np.ndarray:
    """The output by definition, in float64."""
    states = request.states.double().numpy()
    spec = request.spec
    if spec.multivector:
        projector = pooler.projectors[spec.adapter or MERGED]
        weight, bias = (part.detach().double().numpy() for part in projector.parameters())
        vectors = states @ weight.T + bias
        return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    own = (request.length - 1 if pooler.pooling == "last" else 0, request.length)
    means = [states[start:end].mean(axis=0) for start, end in spec.spans or (own,)]
    vectors = np.array(means)[:, : spec.dimensions]
    if spec.normalized:
        vectors = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors if len(spec.spans) > 1 else vectors[0]


@st.composite
def requests(draw: st.DrawFn) -> Request:
    length = draw(st.integers(1, 30))
    states = torch.from_numpy(
        np.random.default_rng(draw(st.integers(0, 2**32))).standard_normal((length, HIDDEN), np.float32)
    )
    kind = draw(st.sampled_from(["plain", "plain", "multi", "spans"]))
    if kind == "multi":
        adapter = draw(st.sampled_from([None, *ADAPTERS]))
        return Request(states, PoolingSpec(multivector=True, adapter=adapter))
    spans: tuple[tuple[int, int], ...] = ()
    if kind == "spans":
        cuts = sorted(draw(st.sets(st.integers(0, length), min_size=2, max_size=6)))
        # Some of the ranges between the cuts: spans may skip tokens.
        pairs = list(itertools.pairwise(cuts))
        spans = tuple(draw(st.lists(st.sampled_from(pairs), min_size=1, unique=True).map(sorted)))
    dimensions = draw(st.none() | st.integers(1, HIDDEN))
    return Request(states, PoolingSpec(spans, dimensions, draw(st.booleans())))


@settings(max_examples=80, deadline=None)
@given(batch=st.lists(requests(), min_size=1, max_size=6), data=st.data())
def test_any_mix_and_chunking_is_pooled(
    pooler: SpanPooler, batch: list[Request], data: st.DataObject
) -> None:
    left = list(range(len(batch)))
    while left:
        running = [batch[number] for number in left]
        chunks = [data.draw(st.integers(1, request.length - request.done)) for request in running]
        outputs = step(pooler, running, chunks)
        for number, request, output in zip(list(left), running, outputs, strict=True):
            if output is not None:
                np.testing.assert_allclose(output.numpy(), expected(pooler, request), atol=2e-5)
                assert output.dtype == torch.float32
                assert request.kept.hidden_states_cache == []
                left.remove(number)


@pytest.mark.parametrize(
    "spec", [PoolingSpec(), PoolingSpec(multivector=True), PoolingSpec(((2, 7), (7, 9)))]
)
def test_preempted_request_starts_again(pooler: SpanPooler, spec: PoolingSpec) -> None:
    request = Request(torch.randn(10, HIDDEN), spec)
    step(pooler, [request], [6])
    request.done = 0
    step(pooler, [request], [4])
    [output] = step(pooler, [request], [6])
    assert output is not None
    np.testing.assert_allclose(output.numpy(), expected(pooler, request), atol=1e-5)


def test_negative_positions_count_from_end(pooler: SpanPooler) -> None:
    """Used for images: only the engine knows their number of tokens."""
    states = torch.randn(20, HIDDEN)
    from_end = Request(states, PoolingSpec(((3, -6),)))
    absolute = Request(states.clone(), PoolingSpec(((3, 14),)))
    one, other = step(pooler, [from_end, absolute], [20, 20])
    assert one is not None
    assert other is not None
    torch.testing.assert_close(one, other)
    np.testing.assert_allclose(one.numpy(), expected(pooler, absolute), atol=1e-5)


def test_partial_sum_does_not_keep_its_batch(pooler: SpanPooler) -> None:
    long, short = (
        Request(torch.randn(50, HIDDEN), PoolingSpec()),
        Request(torch.randn(3, HIDDEN), PoolingSpec()),
    )
    step(pooler, [long, short], [10, 3])
    [kept] = long.kept.hidden_states_cache
    assert kept.untyped_storage().nbytes() == HIDDEN * 4


def test_bfloat16_is_summed_in_float32(pooler: SpanPooler) -> None:
    """In bfloat16, a sum of ones stops at 256."""
    request = Request(torch.ones(2000, HIDDEN, dtype=torch.bfloat16), PoolingSpec(normalized=False))
    [output] = step(pooler, [request], [2000])
    assert output is not None
    torch.testing.assert_close(output, torch.ones(HIDDEN))


def test_spec_survives_kwargs() -> None:
    assert PoolingSpec().to_kwargs() is None
    for spec in (PoolingSpec(((1, -2),), 7, False), PoolingSpec(multivector=True), PoolingSpec()):
        assert PoolingSpec.from_kwargs(spec.to_kwargs()) == spec


@pytest.mark.parametrize(
    "spec", [PoolingSpec(), PoolingSpec(multivector=True), PoolingSpec(normalized=False)]
)
def test_cached_prefix_is_refused(pooler: SpanPooler, spec: PoolingSpec) -> None:
    """Of 20 tokens, 16 are missing in the mean."""
    request = Request(torch.randn(20, HIDDEN), spec, done=16)
    with pytest.raises(RuntimeError, match="prefix cached"):
        step(pooler, [request], [4])


@pytest.mark.parametrize("length", [1, 2, 21, 512])
def test_text_positions_equal_vllms(length: int) -> None:
    def no_images(features: list[Any]) -> Iterator[Any]:
        assert not features
        return iter(())

    tokens = list(range(length))
    model: Any = SimpleNamespace(iter_mm_grid_thw=no_images)
    expected, delta = Qwen2_5_VLForConditionalGeneration.get_mrope_input_positions(model, tokens, [])
    positions, ours = TriptychEmbeddings.get_mrope_input_positions(model, tokens, [])
    assert positions.dtype == expected.dtype
    assert torch.equal(positions, expected)
    assert ours == delta == 0
