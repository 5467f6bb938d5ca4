"""What the directory of a Ray cluster can take: `python -m loadtests.bench.directory --replicas 1000`.

Starts a Ray of its own on this machine, and lets callers say as fast as they can what replicas and routers
say once or twice a second: that they serve, and what they know. Prints calls a second, the share of a core
that the actor used for them, and what that means for a cluster.
"""

import argparse
import asyncio
import time

import psutil
import ray

from deploy.ray.book import LEARNING_SECONDS, Member, RouterReport
from deploy.ray.directory import NAMESPACE, DirectoryClient
from deploy.ray.node_router import LOOK_SECONDS
from deploy.ray.pool_worker import BEAT_SECONDS
from deploy.ray.pressure import Pressure
from workers.shared.contract import POOLS

IN_FLIGHT = 64


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicas", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each kind of call")
    options = parser.parse_args()
    ray.init(address="local", namespace=NAMESPACE, num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        asyncio.run(measure(options.replicas, options.seconds))
    finally:
        ray.shutdown()


async def measure(replicas: int, seconds: float) -> None:
    """Beats of `replicas` workers, then reports of routers that know all of them."""
    book = DirectoryClient("bench")
    members = [
        Member(f"m{number}", POOLS[number % len(POOLS)], f"10.{number // 250}.0.{number % 250}:8101", "node")
        for number in range(replicas)
    ]
    for member in members:
        await book.ask("beat", member)
    await asyncio.sleep(LEARNING_SECONDS)
    known = frozenset(member.address for member in members)
    report = RouterReport("router", "node", "url", known, known, {pool: Pressure(1, 2) for pool in POOLS})
    beats, beat_cpu = await rate(book, "beat", members, seconds)
    reports, report_cpu = await rate(book, "report", [report], seconds)
    print(f"directory with {replicas} replicas, {IN_FLIGHT} calls in flight, one core:")
    print(f"  beats    {beats:8,.0f} /s, {1e6 * beat_cpu:7,.0f} us of the actor's CPU each")
    print(f"  reports  {reports:8,.0f} /s, {1e6 * report_cpu:7,.0f} us of the actor's CPU each")
    print(
        f"  of its core: {replicas} replicas take {beat_cpu * replicas / BEAT_SECONDS:.0%}, "
        f"each router {report_cpu / LOOK_SECONDS:.1%}"
    )


async def rate(
    book: DirectoryClient, method: str, arguments: list[Member] | list[RouterReport], seconds: float
) -> tuple[float, float]:
    """Calls a second, and the actor's CPU seconds for one."""
    [actor] = [
        process for process in psutil.process_iter() if "ray::Directory" in " ".join(process.cmdline())
    ]
    before = sum(actor.cpu_times()[:2])
    began = time.monotonic()
    done = 0

    async def call(first: int) -> None:
        nonlocal done
        number = first
        while time.monotonic() - began < seconds:
            await book.ask(method, arguments[number % len(arguments)], seconds=30)
            number += IN_FLIGHT
            done += 1

    await asyncio.gather(*(call(first) for first in range(IN_FLIGHT)))
    elapsed = time.monotonic() - began
    return done / elapsed, (sum(actor.cpu_times()[:2]) - before) / done


if __name__ == "__main__":
    main()
