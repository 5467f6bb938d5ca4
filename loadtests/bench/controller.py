"""What Ray's control plane costs for each replica: `python -m loadtests.bench.controller --replicas 10 40`.

Starts a Ray of its own on this machine with so many replicas that do nothing, checked for health as often as
workers are, and prints how much of a core Serve's controller, Ray's store and its raylet use while nothing
changes, and how long the replicas took to start.
"""

import argparse
import time

import psutil
import ray
from ray import serve
from ray.serve.config import ProxyLocation

from deploy.ray.serve_app import HEALTH_PERIOD_SECONDS, HEALTH_TIMEOUT_SECONDS

SETTLE_SECONDS = 5.0
PROCESSES = {"controller": "ray::ServeController", "store (GCS)": "gcs_server", "raylet": "raylet/raylet"}


class Nothing:
    """A replica that does nothing."""

    def check_health(self) -> None:
        """It is well."""


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicas", type=int, nargs="+", default=[10, 40], help="in this order")
    parser.add_argument("--seconds", type=float, default=20.0, help="measured for each number")
    options = parser.parse_args()
    ray.init(
        "local",
        _node_ip_address="127.0.0.1",
        num_cpus=max(options.replicas),
        include_dashboard=False,
        log_to_driver=False,
    )
    try:
        serve.start(proxy_location=ProxyLocation.Disabled)
        print("replicas  started in  " + "  ".join(f"{name:>12}" for name in PROCESSES))
        for count in options.replicas:
            started = start(count)
            time.sleep(SETTLE_SECONDS)
            shares = cpu_shares(options.seconds)
            row = "  ".join(f"{shares[name]:12.1%}" for name in PROCESSES)
            print(f"{count:8}  {started:8.0f} s  {row}", flush=True)
    finally:
        serve.shutdown()  # type: ignore[no-untyped-call]
        ray.shutdown()


def start(count: int) -> float:
    """Have `count` replicas; the seconds that it took."""
    began = time.monotonic()
    deployment = serve.deployment(
        num_replicas=count,
        ray_actor_options={"num_cpus": 0.5},
        health_check_period_s=HEALTH_PERIOD_SECONDS,
        health_check_timeout_s=HEALTH_TIMEOUT_SECONDS,
    )(Nothing)
    serve.run(deployment.bind(), name="bench", route_prefix=None)
    return time.monotonic() - began


def cpu_shares(seconds: float) -> dict[str, float]:
    """The part of a core that each of `PROCESSES` uses."""
    found = {name: _process(title) for name, title in PROCESSES.items()}
    before = {name: sum(process.cpu_times()[:2]) for name, process in found.items()}
    time.sleep(seconds)
    return {name: (sum(process.cpu_times()[:2]) - before[name]) / seconds for name, process in found.items()}


def _process(title: str) -> psutil.Process:
    return next(process for process in psutil.process_iter() if title in " ".join(process.cmdline()[:1]))


if __name__ == "__main__":
    main()
