"""The GPU benchmark's arithmetic, and the limits of sections; without engines."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from tests.unit.loadtests.test_bench_results import result
from triptych.loadtests.bench import __main__ as bench
from triptych.loadtests.bench.bench_report import markdown
from triptych.loadtests.bench.bench_targets import GOALS
from triptych.loadtests.bench.measure import Bench, Result
from triptych.loadtests.bench.sections import Section
from triptych.loadtests.bench.sections.gpu_figures import flops_per_token, highest, least_cosine
from triptych.loadtests.bench.sections.on_gpu import QUERIES, TIMES_RECIPE
from triptych.loadtests.bench.servers import Servers
from triptych.workers.checkpoints.folders import load_json
from triptych.workers.checkpoints.tiny import FILES, FULL
from triptych.workers.shared.families import V4


def test_token_of_the_full_size_takes_five_and_a_half_gigaflop() -> None:
    config = load_json(FILES / V4.name / FULL)
    # 36 layers: queries and output 2048 x 2048, keys and values 2048 x 256, three matrices of 2048 x 11008.
    weights = 36 * (2 * 2048 * 2048 + 2 * 2048 * 256 + 3 * 2048 * 11008)
    assert flops_per_token(config, 0) == 2 * weights == pytest.approx(5.5e9, rel=0.01)
    # Of 32,768 tokens: 16,384 others on average, 2 x 2048 multiplications and additions each.
    attention = 36 * 16_384 * 2 * 2048 * 2
    assert flops_per_token(config, 32_768) == 2 * weights + attention


@pytest.mark.parametrize(("limit", "start"), [(700, 100), (700, 5000), (700, 700), (699.9, 700), (0, 100)])
async def test_search_ends_close_below_the_limit(limit: float, start: float) -> None:
    async def holds(rate: float) -> bool:
        return rate <= limit

    assert 0.8 * limit <= await highest(holds, start) <= limit


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_vector_without_direction_has_no_cosine(value: float) -> None:
    good = np.ones(4, np.float32)
    assert least_cosine([good], [good]) == pytest.approx(1)
    with pytest.raises(ValueError, match="zero or not finite"):
        least_cosine([good, good * value], [good, good])


def test_report_has_goals_figures_and_errors() -> None:
    recipe = result("recipe", **{TIMES_RECIPE.format(512): 2.5})
    queries, failed = result("queries", **{QUERIES: 3100.0}), result("fp8", error="RuntimeError: no kernel")
    text = markdown({"queries": queries, "recipe": recipe, "fp8": failed})
    goals = [line for line in text.splitlines() if "goal on an H200" in line]
    assert [("3100" in line, "**no**" in line) for line in goals] == [(True, False), (False, True)]
    assert len(GOALS) == 3, "one was not measured"
    assert "    RuntimeError: no kernel" in text


async def test_sections_are_written_one_by_one_within_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that fail, one that takes too long, one that finds what they left, and one beyond the budget."""
    seen: list[dict[str, Result]] = []

    async def fails(_: Bench, its: Result) -> None:
        its.figures["before"] = 1.0
        raise ValueError("a reason")

    async def waits(_: Bench, its: Result) -> None:
        raise TimeoutError("no answer")

    async def hangs(_: Bench, its: Result) -> None:
        monkeypatch.setattr(bench, "SECTION_SECONDS", 1000.0)
        await asyncio.Event().wait()

    async def looks(_: Bench, its: Result) -> None:
        seen.append(bench.read(tmp_path))
        monkeypatch.setattr(bench, "SECTION_SECONDS", 0.0)

    runs = {"fails": fails, "waits": waits, "hangs": hangs, "looks": looks, "late": hangs}
    for name, section in runs.items():
        monkeypatch.setitem(bench.SECTIONS, name, Section(name, section, gpu=True))
    monkeypatch.setattr(bench, "SECTION_SECONDS", 0.01)
    its = Bench(Servers(tmp_path), bench.QUICK, "nano", {"earlier": result("earlier")})
    await bench.run(its, list(runs), budget=999.0, folder=tmp_path)

    [then] = seen
    assert then["fails"].error == "ValueError: a reason"
    assert then["fails"].figures == {"before": 1.0}
    assert then["waits"].error == "TimeoutError: no answer"
    assert "not enough" in then["hangs"].error
    last = bench.read(tmp_path)
    assert list(last) == ["earlier", *runs]
    assert last["looks"].error == ""
    assert "not enough" in last["late"].error
    assert last["late"].figures == {}
    assert "not enough" in (tmp_path / "bench.md").read_text()
