"""Simulate many replicas. docs/SCALE.md says what is simulated, and shows the results.

    python -m loadtests.simulate [--quick] [--only NAME] [--out build/simulate]

Writes simulate.md and scale-autoscaling.svg. Each run gives the same numbers.
"""

import argparse
from pathlib import Path

from triptych.loadtests.bench.summary import number, table
from triptych.loadtests.simulate.experiments import EXPERIMENTS, run
from triptych.loadtests.simulate.scaling_plot import draw


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs, up to 100 replicas")
    parser.add_argument("--only", action="append", choices=EXPERIMENTS, help="this one; may be repeated")
    parser.add_argument("--out", type=Path, default=Path("build/simulate"), help="default: %(default)s")
    options = parser.parse_args()
    results = run(options.only or list(EXPERIMENTS), options.quick)
    report = ""
    for name, found in results.items():
        rows = [
            [value if isinstance(value, str) else number(value) for value in result.row.values()]
            for result in found
        ]
        report += "\n".join([f"## {EXPERIMENTS[name][0]}", "", *table(list(found[0].row), rows), "", ""])
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "simulate.md").write_text(report)
    print(report)
    if "scaling" in results:
        draw(results["scaling"], options.out / "scale-autoscaling.svg")


if __name__ == "__main__":
    main()
