"""Many replicas, simulated; docs/SCALE.md says what is, and what it is good for.

    python -m loadtests.simulate [--quick] [--only NAME] [--out build/simulate]

Writes simulate.json, simulate.md and the figures scale-*.svg. The same seed gives the same numbers, but for
what a request costs, which is measured.
"""

import argparse
import gc
import logging
import sys
from pathlib import Path

import msgspec
from tqdm import tqdm

from loadtests.bench.__main__ import machine, revision
from loadtests.simulate.experiments import runs
from loadtests.simulate.plots import draw
from loadtests.simulate.report import markdown
from loadtests.simulate.results import Results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs, up to 100 replicas")
    parser.add_argument(
        "--only",
        action="append",
        choices=("load", "routers", "scaling", "control"),
        help="this experiment; may be repeated",
    )
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("build/simulate"), help="default: %(default)s")
    options = parser.parse_args()
    # Replicas that drain are no news here; and collecting cycles young and often is half of the time.
    logging.getLogger("router").setLevel(logging.ERROR)
    gc.set_threshold(200_000, 20, 1000)
    results = Results(quick=options.quick, seed=options.seed, revision=revision(), machine=machine())
    todo = list(runs(results, options.seed, options.quick, set(options.only or ())))
    with tqdm(todo, unit="run", disable=None) as bar:
        for name, run in bar:
            bar.set_postfix_str(name)
            run()
    options.out.mkdir(parents=True, exist_ok=True)
    data = msgspec.json.format(msgspec.json.encode(results), indent=1)
    (options.out / "simulate.json").write_bytes(data + b"\n")
    report = markdown(results)
    (options.out / "simulate.md").write_text(report)
    draw(results, options.out)
    print(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
