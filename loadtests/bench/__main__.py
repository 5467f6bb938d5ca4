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

from loadtests.bench.measure import Result
from loadtests.bench.sections import (
    FULL,
    QUICK,
    Scale,
    Section,
    Setup,
    compared,
    latency,
    mix,
    overload,
    router_alone,
)
from loadtests.bench.servers import Servers
from loadtests.bench.summary import markdown
from loadtests.provenance import machine, revision

# Neighbours share engines.
SECTIONS: dict[str, Section] = {
    "router": router_alone.SECTION,
    "throughput": compared.THROUGHPUT,
    "mix": mix.SECTION,
    "latency": latency.SECTION,
    "overload": overload.SECTION,
    "recipe-nano": compared.AGAINST_RECIPE_NANO,
    "recipe-tiny": compared.AGAINST_RECIPE_TINY,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer, shorter rounds and no three pools")
    parser.add_argument("--only", action="append", choices=SECTIONS, help="this benchmark; may be repeated")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="default: %(default)s")
    options = parser.parse_args()
    scale = QUICK if options.quick else FULL
    names = options.only or [name for name, section in SECTIONS.items() if section.quick or not scale.quick]
    # An open loop beyond the capacity has thousands of connections.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 1 << 16)), hard))
    options.out.mkdir(parents=True, exist_ok=True)
    run(names, scale, options.out)
    paths = {name: options.out / f"{name}.json" for name in SECTIONS}
    report = markdown(
        {
            name: msgspec.json.decode(path.read_bytes(), type=Result)
            for name, path in paths.items()
            if path.exists()
        }
    )
    (options.out / "benchmarks.md").write_text(report)
    print(report)


def run(names: Sequence[str], scale: Scale, out: Path) -> None:
    """Run benchmarks one after another. Each writes its file."""
    work = out / "work"
    work.mkdir(exist_ok=True)
    servers = Servers(work)
    try:
        for name in names:
            section = SECTIONS[name]
            print(f"{name}: {section.title}", flush=True)
            servers.start(section.engines)
            began, clock = time.strftime("%Y-%m-%d %H:%M"), time.monotonic()
            rows = uvloop.run(section.run(Setup(servers, scale)))
            result = Result(
                name=name,
                title=section.title,
                quick=scale.quick,
                began=began,
                seconds=time.monotonic() - clock,
                machine=machine(),
                revision=revision(),
                rows=rows,
            )
            data = msgspec.json.format(msgspec.json.encode(result), indent=1)
            (out / f"{name}.json").write_bytes(data + b"\n")
    finally:
        servers.start(())


if __name__ == "__main__":
    main()
