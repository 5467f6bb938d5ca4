"""Simulate many replicas. docs/SCALE.md says what is simulated, and shows the results.

    python -m loadtests.simulate [--quick] [--only NAME]

Prints Markdown. Each run gives the same numbers.
"""

import argparse
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

from tqdm import tqdm

from triptych.loadtests.bench.bench_report import table
from triptych.loadtests.simulate.experiments import EXPERIMENTS, row, runs, set_up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs, up to 100 replicas")
    parser.add_argument("--only", action="append", choices=EXPERIMENTS, help="this one; may be repeated")
    options = parser.parse_args()
    names, quick = options.only or list(EXPERIMENTS), options.quick
    context = multiprocessing.get_context("spawn")
    report = ""
    with ProcessPoolExecutor(mp_context=context, initializer=set_up) as pool:
        jobs = {name: [pool.submit(row, name, quick, *run) for run in runs(name, quick)] for name in names}
        with tqdm(total=sum(map(len, jobs.values())), unit="run", disable=None) as bar:
            for name, submitted in jobs.items():
                rows = []
                for job in submitted:
                    rows.append(job.result())
                    bar.update()
                lines = table(list(rows[0]), [list(one.values()) for one in rows])
                report += "\n".join([f"## {EXPERIMENTS[name]}", "", *lines, "", ""])
    print(report)


if __name__ == "__main__":
    main()
