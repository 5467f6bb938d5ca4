"""Measure everything on this machine's GPU, section by section.

    python -m loadtests.gpu [--only SECTION] [--budget SECONDS] [--size nano] [--out build/gpu]

Writes a random checkpoint of the model's size first. After each section it writes gpu.json and gpu.md again;
sections of earlier runs stay. A section that fails or takes over three minutes is reported with its error.
Then the next one runs.
"""

import argparse
import asyncio
import resource
import sys
import time
from pathlib import Path

import uvloop

from triptych.loadtests.gpu import card
from triptych.loadtests.gpu.gpu_engines import SIZES, Engines
from triptych.loadtests.gpu.gpu_report import Outcome, read, write
from triptych.loadtests.gpu.gpu_runs import Bench
from triptych.loadtests.gpu.gpu_sections import SECTIONS
from triptych.loadtests.provenance import machine, revision

SECTION_SECONDS = 180.0
# A section that starts later than so long before the end measures nothing.
LEAST_SECONDS = 20.0


def main(arguments: list[str] | None = None) -> int:
    """Run the sections. Exit status: 1 if one ended early or was not run."""
    default = "full" if card.name() else "nano"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", action="append", choices=SECTIONS, help="this section; may be repeated")
    parser.add_argument("--budget", type=float, default=2700, help="seconds for all; default: %(default)s")
    parser.add_argument("--size", choices=SIZES, default=default, help="default: full; nano without a GPU")
    parser.add_argument("--out", type=Path, default=Path("build/gpu"), help="default: %(default)s")
    options = parser.parse_args(arguments)
    # An open loop beyond the capacity has thousands of connections.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 1 << 16)), hard))
    folder, size = options.out / options.size, SIZES[options.size]
    (folder / "work").mkdir(parents=True, exist_ok=True)
    bench = Bench(size, Engines(folder / "work", size), read(folder))
    names = [name for name in SECTIONS if name in (options.only or SECTIONS)]
    try:
        uvloop.run(run(bench, names, options.budget, folder))
    finally:
        bench.engines.stop()
    print(folder / "gpu.md")
    return int(any(bench.report[name].error for name in names))


async def run(bench: Bench, names: list[str], budget: float, folder: Path) -> None:
    """Run sections one after another, and write the report after each."""
    end = time.monotonic() + budget
    for number, name in enumerate(names, 1):
        limit = min(SECTION_SECONDS, end - time.monotonic())
        print(f"[{number}/{len(names)}] {name}, at most {limit:.0f} s", file=sys.stderr)
        bench.report[name] = await limited(name, bench, limit)
        print(bench.report[name].error or f"{bench.report[name].seconds:.0f} s", file=sys.stderr)
        write(bench.report, folder)


async def limited(name: str, bench: Bench, seconds: float) -> Outcome:
    """The outcome of a section that may take `seconds`. An error ends it and becomes part of the outcome."""
    title, measure = SECTIONS[name]
    outcome = Outcome(
        name=name,
        title=title,
        quick=False,
        began=time.strftime("%Y-%m-%d %H:%M"),
        seconds=0,
        machine=f"{card.name() or 'no GPU'}; {machine()}",
        revision=revision(),
        rows=[],
        figures={},
    )
    clock = time.monotonic()
    try:
        if seconds < LEAST_SECONDS:
            raise TimeoutError
        async with asyncio.timeout(seconds):
            await measure(bench, outcome)
    except TimeoutError:
        outcome.error = f"{max(seconds, 0):.0f} s were not enough: a section's limit, or the rest of --budget"
    except Exception as error:
        outcome.error = f"{type(error).__name__}: {error}"
    outcome.seconds = time.monotonic() - clock
    return outcome


if __name__ == "__main__":
    sys.exit(main())
