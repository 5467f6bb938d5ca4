"""Where routers, connections, probes and discovery become the limit: arithmetic from measured rates."""

import math
from dataclasses import dataclass

from deploy.ray.node_router import LOOK_SECONDS
from deploy.ray.pool_worker import BEAT_SECONDS
from loadtests.simulate.router import default
from router.settings import RouterSettings

# "router alone, base64", docs/BENCHMARKS.md.
ROUTER_REQUESTS_PER_CPU_SECOND = 3160.0
# What one directory actor answered, with its callers on the same two cores: `loadtests.bench.directory`.
BEATS_PER_SECOND = 1325.0
# The same for reports of routers, by the replicas that each names.
REPORTS_PER_SECOND = {50: 982.0, 1000: 372.0}
# How full a router's core may be on average; beyond that its own event loop is what requests wait for.
ROUTER_SHARE = 0.7
# What a request costs a router's core more for each replica that its pool has: the pool looks at all of them
# for each batch. Measured by `router_cost` on the machine of docs/BENCHMARKS.md: 46 us with 1 replica, 769 us
# with 1,000.
SECONDS_PER_REPLICA = 0.72e-6
# One call to a worker, in CPU seconds of the router: docs/PERFORMANCE.md, "aiohttp itself" (0.10 to 0.18 ms).
CALL_SECONDS = 0.15e-3
# A router's report names each replica twice and the answer once: address and punctuation, about.
BYTES_PER_REPLICA = 3 * 25


@dataclass(frozen=True, slots=True)
class Needs:
    """What `replicas` at `rate` requests a second need; rates are a second, for the whole deployment.

    `probe_share` is the share of each router's core that probes take, `directory_share` that of what the
    directory can answer.
    """

    replicas: int
    rate: float
    request_seconds: float
    routers: int
    connections_per_replica: int
    connections: int
    probes: float
    probe_share: float
    beats: float
    reports: float
    directory_share: float
    directory_bytes: float


def needs(replicas: int, rate: float) -> Needs:
    """For `rate` requests a second in all, each of one input."""
    probe = float(RouterSettings.model_fields["probe_seconds"].default)
    probe_share = replicas / probe * CALL_SECONDS
    request = 1 / ROUTER_REQUESTS_PER_CPU_SECOND + SECONDS_PER_REPLICA * (replicas - 1)
    routers = max(1, math.ceil(rate * request / max(ROUTER_SHARE - probe_share, 0.01)))
    beats, reports = replicas / BEAT_SECONDS, routers / LOOK_SECONDS
    lanes = default("lanes")
    return Needs(
        replicas=replicas,
        rate=rate,
        request_seconds=request,
        routers=routers,
        connections_per_replica=routers * lanes,
        connections=routers * replicas * lanes,
        probes=routers * replicas / probe,
        probe_share=probe_share,
        beats=beats,
        reports=reports,
        directory_share=beats / BEATS_PER_SECOND + reports * report_seconds(replicas),
        directory_bytes=reports * replicas * BYTES_PER_REPLICA,
    )


def report_seconds(replicas: int) -> float:
    """What a report that names `replicas` takes of the directory: the line through REPORTS_PER_SECOND."""
    (few, some), (many, fewer) = REPORTS_PER_SECOND.items()
    return 1 / some + (1 / fewer - 1 / some) * (replicas - few) / (many - few)
