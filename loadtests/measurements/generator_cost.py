"""CPU of the load test harness and of bench's own client for one request.

    python -m loadtests.measurements.generator_cost

Both ask our router in front of a stub worker for one short query, 32 at a time. The stub gives every text
the same vector, which the harness reports as wrong.
"""

import tempfile
from pathlib import Path

import uvloop

from loadtests import estimates
from loadtests.bench.cpu import Meter
from loadtests.bench.loops import closed_loop
from loadtests.bench.markdown import number, table
from loadtests.bench.sections.mix import put_on
from loadtests.bench.sections.router_alone import StubWorker, no_vectors, to_router
from loadtests.processes import Router

SCENARIO = """
about = "one query"
[[flows]]
name = "query"
task = "retrieval.query"
encoding = "{}"
"""
USERS, REQUESTS = 32, 10_000


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stub = StubWorker(folder / "stub.log").wait_until_ready()
        router = Router(folder / "router.log", [("retrieval", stub.url)]).wait_until_ready()
        try:
            for form in ("base64", "float"):
                scenario = folder / "scenario.toml"
                scenario.write_text(SCENARIO.format(form))
                arguments = ["--url", router.url, "--scenario", str(scenario), "--users", str(USERS)]
                measured = put_on([*arguments, "--seconds", "10"], folder / "run")
                rate, cpu = estimates.throughput([measured]).value, measured.processes[0].cpu
                rows.append((f"harness, {form}", number(rate), number(1e3 * cpu / rate)))
                meter = Meter({})
                done = uvloop.run(
                    closed_loop(router.url, to_router(router, form, REQUESTS), USERS, no_vectors)
                )
                cpu = meter.read().groups[Meter.GENERATOR] / len(done.replies)
                rows.append((f"bench, {form}", number(done.items_per_second), number(1e3 * cpu)))
        finally:
            router.kill()
            stub.kill()
    print("\n".join(table(("client", "requests/s", "CPU ms a request"), rows)))


if __name__ == "__main__":
    main()
