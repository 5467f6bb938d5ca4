"""Compare Triptych with other servers of the same vectors, side by side on this machine in one run.

    python -m loadtests.bench [--quick] [--only NAME] [--out build/bench]

Writes NAME.json for each benchmark, and benchmarks.md from all JSON files in the folder. All systems serve
the same generated checkpoints, with one thread for each engine.
"""

import argparse
import resource
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import uvloop

from triptych.loadtests.bench.measure import Result
from triptych.loadtests.bench.sections import (
    FULL,
    QUICK,
    Setup,
    compared,
    emulated,
    everyone,
    growth,
    latency,
    overload,
    router_alone,
)
from triptych.loadtests.bench.servers import Servers
from triptych.loadtests.bench.summary import markdown
from triptych.loadtests.provenance import machine, revision

# Neighbours share engines.
SECTIONS = {
    "router": router_alone.SECTION,
    "throughput": compared.THROUGHPUT,
    "encoder": compared.ENCODER,
    "latency": latency.SECTION,
    "overload": overload.SECTION,
    "growth": growth.SECTION,
    "emulated": emulated.SECTION,
    "recipe-nano": compared.AGAINST_RECIPE_NANO,
    "everyone": everyone.SECTION,
    "recipe-tiny": compared.AGAINST_RECIPE_TINY,
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--only", action="append", choices=SECTIONS, help="this benchmark; may be repeated")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="default: %(default)s")
    options = parser.parse_args(arguments)
    scale = QUICK if options.quick else FULL
    names = options.only or [name for name, section in SECTIONS.items() if section.quick or not scale.quick]
    # An open loop beyond the capacity has thousands of connections.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 1 << 16)), hard))
    work = options.out / "work"
    work.mkdir(parents=True, exist_ok=True)
    servers = Servers(work)
    files = {name: options.out / f"{name}.json" for name in SECTIONS}
    try:
        for name in names:
            result = run(name, Setup(servers, scale))
            files[name].write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1))
    finally:
        servers.start(())
    found = {name: file.read_bytes() for name, file in files.items() if file.exists()}
    report = markdown({name: msgspec.json.decode(data, type=Result) for name, data in found.items()})
    (options.out / "benchmarks.md").write_text(report)
    print(report)


def run(name: str, setup: Setup) -> Result:
    """Start the engines of a benchmark and run it."""
    section = SECTIONS[name]
    print(f"{name}: {section.title}", flush=True)
    setup.servers.start(section.engines)
    began, clock = time.strftime("%Y-%m-%d %H:%M"), time.monotonic()
    rows = uvloop.run(section.run(setup))
    return Result(
        name=name,
        title=section.title,
        quick=setup.scale.quick,
        began=began,
        seconds=time.monotonic() - clock,
        machine=machine(),
        revision=revision(),
        rows=rows,
    )


if __name__ == "__main__":
    main()
