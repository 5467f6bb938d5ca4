"""Routers, connections, probes and directory calls of large deployments: arithmetic from measured rates."""

import math

from deploy.ray.router import LOOK_SECONDS
from deploy.ray.worker import BEAT_SECONDS
from loadtests.simulate.simulated_router import default
from router.settings import RouterSettings

# Measured: docs/SCALE.md, "Around the engines", says how.
ROUTER_REQUESTS_PER_CPU_SECOND = 3160.0
BEATS_PER_SECOND = 1325.0
# By the number of replicas that each report names.
REPORTS_PER_SECOND = {50: 982.0, 1000: 372.0}
# CPU seconds that each replica of the pool adds to a request: the pool looks at all of them for each batch.
SECONDS_PER_REPLICA = 0.72e-6
# CPU seconds of the router for one call to a worker: docs/PERFORMANCE.md, "aiohttp itself".
CALL_SECONDS = 0.15e-3
# The share of a router's core to be used on average.
ROUTER_SHARE = 0.7
# A report names each replica twice and its answer once: address and punctuation.
BYTES_PER_REPLICA = 3 * 25


def request_seconds(replicas: int) -> float:
    """CPU seconds of a router for one request of one input."""
    return 1 / ROUTER_REQUESTS_PER_CPU_SECOND + SECONDS_PER_REPLICA * (replicas - 1)


def probe_share(replicas: int) -> float:
    """The share of a router's core that probes take."""
    return replicas / _probe_seconds() * CALL_SECONDS


def routers_for(replicas: int, rate: float) -> int:
    """Router processes for `rate` requests a second."""
    return max(1, math.ceil(rate * request_seconds(replicas) / (ROUTER_SHARE - probe_share(replicas))))


def around(replicas: int, rate: float) -> dict[str, float]:
    """A row of the table "Around the engines" for `rate` requests a second."""
    routers, lanes = routers_for(replicas, rate), default("lanes")
    beats, reports = replicas / BEAT_SECONDS, routers / LOOK_SECONDS
    return {
        "replicas": replicas,
        "requests/s": rate,
        "router ms a request": 1e3 * request_seconds(replicas),
        "routers": routers,
        "connections to a replica": routers * lanes,
        "probes/s": routers * replicas / _probe_seconds(),
        "% of a router's core for probes": 100 * probe_share(replicas),
        "beats/s": beats,
        "reports/s": reports,
        "% of the directory": 100 * (beats / BEATS_PER_SECOND + reports * _report_seconds(replicas)),
        "directory MB/s": reports * replicas * BYTES_PER_REPLICA / 1e6,
    }


def _probe_seconds() -> float:
    return float(RouterSettings.model_fields["probe_seconds"].default)


def _report_seconds(replicas: int) -> float:
    """The directory's time for one report: the line through `REPORTS_PER_SECOND`."""
    (few, some), (many, fewer) = REPORTS_PER_SECOND.items()
    return 1 / some + (1 / fewer - 1 / some) * (replicas - few) / (many - few)
