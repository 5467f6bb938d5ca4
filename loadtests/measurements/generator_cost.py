"""What the load-test harness itself costs: requests a second that one core of it can put on and check.

    python -m loadtests.bench.harness [--seconds 10]

Against our router and a stub worker that answers at once with one and the same vector (which the harness
complains of: it is not what is measured). A closed loop of 32 users keeps one process of the harness as busy
as it gets.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from loadtests import estimates, results
from loadtests.bench.report import number, table
from loadtests.bench.sections.router_alone import StubWorker
from loadtests.processes import Router

QUERY = 'task = "retrieval.query"'
PASSAGES = 'task = "retrieval.passage"\ninputs = 32\ntokens = 100'
FLOAT = '\nencoding = "float"'
# What is sent, and how many users send it: of lists, more would only fill the router's queue.
FLOWS = {
    "1 query, base64": (QUERY, 32),
    "1 query, float": (QUERY + FLOAT, 32),
    "32 passages of 100 tokens, base64": (PASSAGES, 8),
    "32 passages of 100 tokens, float": (PASSAGES + FLOAT, 8),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10, help="of each (default: %(default)s)")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        stub = StubWorker(work / "stub.log", 200).wait_until_ready()
        router = Router(work / "router.log", [("retrieval", stub.url)]).wait_until_ready()
        try:
            for name, (flow, users) in FLOWS.items():
                rows.append((name, *_measured(router.url, work, flow, users, options.seconds)))
        finally:
            router.kill()
            stub.kill()
    columns = ("request, 2,048 dimensions", "requests/s", "core in use", "requests/s a core", "failed")
    print("\n".join(table(columns, rows)))
    return 0


def _measured(url: str, work: Path, flow: str, users: int, seconds: float) -> tuple[str, ...]:
    scenario = work / "scenario.toml"
    scenario.write_text(f'about = "one flow"\n[[flows]]\nname = "flow"\n{flow}\n')
    command = [sys.executable, "-m", "loadtests", "run", "--url", url, "--scenario", str(scenario)]
    command += ["--users", str(users), "--seconds", str(seconds), "--out", str(work / "run")]
    subprocess.run(command, stdout=subprocess.DEVNULL)
    [measured] = results.read(work / "run").segments
    rate = estimates.throughput([measured]).value
    [process] = measured.processes
    failed = sum(estimates.failures([measured]).values())
    return number(rate), f"{process.cpu:.0%}", number(rate / process.cpu), f"{failed:,}"


if __name__ == "__main__":
    sys.exit(main())
