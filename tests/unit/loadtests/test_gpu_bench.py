"""The GPU benchmark's arithmetic, its report, and its limits; without engines."""

import asyncio
from pathlib import Path

import pytest

from triptych.loadtests.bench.measure import Row
from triptych.loadtests.gpu import __main__ as gpu
from triptych.loadtests.gpu.flops import flops_per_token
from triptych.loadtests.gpu.gpu_engines import SIZES, Engines
from triptych.loadtests.gpu.gpu_report import (
    QUERIES,
    SHARE,
    THROUGH_ROUTER,
    TIMES_RECIPE,
    TOKENS,
    Outcome,
    Report,
    markdown,
    read,
)
from triptych.loadtests.gpu.gpu_runs import Bench, highest
from triptych.loadtests.gpu.gpu_sections import SECTIONS, Section
from triptych.workers.checkpoints.folders import load_json
from triptych.workers.checkpoints.tiny import FILES, FULL
from triptych.workers.shared.families import V4


def outcome(name: str, error: str = "", **figures: float) -> Outcome:
    its = {"began": "2026-01-01 12:00", "machine": "a machine", "revision": "abc", "seconds": 3}
    return Outcome(name=name, title=name, quick=False, rows=[], figures=figures, error=error, **its)


def test_token_of_the_full_size_takes_five_and_a_half_gigaflop() -> None:
    config = load_json(FILES / V4.name / FULL)
    # 36 layers: queries and output 2048 x 2048, keys and values 2048 x 256, three matrices of 2048 x 11008.
    weights = 36 * (2 * 2048 * 2048 + 2 * 2048 * 256 + 3 * 2048 * 11008)
    assert flops_per_token(config, 0) == 2 * weights == pytest.approx(5.5e9, rel=0.01)
    # Of 32,768 tokens: 16,384 others on average, 2 x 2048 multiplications and additions each.
    attention = 36 * 16_384 * 2 * 2048 * 2
    assert flops_per_token(config, 32_768) == 2 * weights + attention


@pytest.mark.parametrize(("limit", "start"), [(700, 100), (700, 5000), (700, 700), (699.9, 700)])
async def test_search_ends_close_below_the_limit(limit: float, start: float) -> None:
    async def holds(rate: float) -> bool:
        return rate <= limit

    assert 0.8 * limit < await highest(holds, start) <= limit


async def test_search_without_a_rate_that_holds_gives_zero() -> None:
    async def never(rate: float) -> bool:
        return False

    assert await highest(never, 100) == 0


def test_report_has_goals_rows_figures_and_errors() -> None:
    row = Row(load="512-token texts", system="ours", items_per_second=[2.0], requests=9, failures={"500": 3})
    row.figures = {TOKENS: [1024.0], SHARE: [41.5]}
    recipe = outcome("recipe", **{TIMES_RECIPE.format(512): 2.5})
    recipe.rows.append(row)
    queries, failed = outcome("queries", **{QUERIES: 3100.0}), outcome("fp8", "RuntimeError: no kernel")
    text = markdown({"queries": queries, "recipe": recipe, "fp8": failed})
    assert f"| {QUERIES} | 3,000 | 3,100 | yes |" in text
    assert f"| {TIMES_RECIPE.format(512)} | 3 | 2.5 | **no** |" in text
    assert f"| {THROUGH_ROUTER.format(512)} | 90,000 |  | not measured |" in text
    assert f"| ours | {TOKENS} | 1,024 |" in text
    assert f"| ours | {SHARE} | 41.5 |" in text
    assert "3 x 500 of 9" in text
    assert "    RuntimeError: no kernel" in text


async def test_sections_are_written_one_by_one_within_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that fails, one that takes too long, one that finds what they left, and one beyond the budget."""
    seen: list[Report] = []

    async def fails(bench: Bench, its: Outcome) -> None:
        its.figures["before"] = 1.0
        raise ValueError("a reason")

    async def hangs(bench: Bench, its: Outcome) -> None:
        monkeypatch.setattr(gpu, "SECTION_SECONDS", 1000.0)
        await asyncio.Event().wait()

    async def looks(bench: Bench, its: Outcome) -> None:
        seen.append(read(tmp_path))
        monkeypatch.setattr(gpu, "LEAST_SECONDS", 1000.0)

    runs = {"fails": fails, "hangs": hangs, "looks": looks, "late": fails}
    for name, section in runs.items():
        monkeypatch.setitem(SECTIONS, name, Section(name, section))
    monkeypatch.setattr(gpu, "SECTION_SECONDS", 0.01)
    monkeypatch.setattr(gpu, "LEAST_SECONDS", 0.0)
    size = SIZES["nano"]
    earlier = {"earlier": outcome("earlier")}
    await gpu.run(Bench(size, Engines(tmp_path, size), earlier), list(runs), budget=999.0, folder=tmp_path)

    [then] = seen
    assert then["fails"].error == "ValueError: a reason"
    assert then["fails"].figures == {"before": 1.0}
    assert "not enough" in then["hangs"].error
    last = read(tmp_path)
    assert list(last) == ["earlier", *runs]
    assert last["looks"].error == ""
    assert "not enough" in last["late"].error
    assert last["late"].figures == {}
    assert "not enough" in (tmp_path / "gpu.md").read_text()
