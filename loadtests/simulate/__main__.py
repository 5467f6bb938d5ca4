"""Simulate many replicas. docs/SCALE.md says what is simulated, and shows the results.

    python -m loadtests.simulate [--quick] [--only NAME] [--out build/simulate]

Writes simulate.md and scale-autoscaling.svg. The same seed gives the same numbers.
"""

import argparse
import gc
import logging
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tqdm import tqdm

from loadtests.bench.markdown import number, table
from loadtests.simulate.experiments import EXPERIMENTS, Result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs, up to 100 replicas")
    parser.add_argument(
        "--only", action="append", choices=EXPERIMENTS, help="this experiment; may be repeated"
    )
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("build/simulate"), help="default: %(default)s")
    options = parser.parse_args()
    results = run(options.only or list(EXPERIMENTS), options.seed, options.quick)
    report = f"Seed {options.seed}{', quick' if options.quick else ''}.\n"
    for name, found in results.items():
        rows = [[_cell(value) for value in result.row.values()] for result in found]
        report += f"\n## {EXPERIMENTS[name][0]}\n\n" + "\n".join(table(list(found[0].row), rows)) + "\n"
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "simulate.md").write_text(report)
    print(report)
    if "scaling" in results:
        from loadtests.simulate.scaling_plot import draw

        draw(results["scaling"], options.out / "scale-autoscaling.svg")
    return 0


def run(names: list[str], seed: int, quick: bool) -> dict[str, list[Result]]:
    """The results of each experiment. Runs are spread over all cores."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(mp_context=context, initializer=_set_up) as pool:
        futures = {name: [pool.submit(job) for job in EXPERIMENTS[name][1](seed, quick)] for name in names}
        with tqdm(total=sum(map(len, futures.values())), unit="run", disable=None) as bar:
            for future in (future for its in futures.values() for future in its):
                future.add_done_callback(lambda _: bar.update())
            return {name: [future.result() for future in its] for name, its in futures.items()}


def _set_up() -> None:
    # Python's defaults spend half of a run on collecting young objects.
    gc.set_threshold(200_000, 20, 1000)
    # The router logs each replica that it finds slow, which happens by chance with this many.
    logging.getLogger("router").setLevel(logging.ERROR)


def _cell(value: str | float) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return value if isinstance(value, str) else number(value)


if __name__ == "__main__":
    sys.exit(main())
