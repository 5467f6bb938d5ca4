"""Compare Triptych with other servers of the same vectors, side by side on this machine in one run.

    python -m loadtests.bench [--quick] [--only NAME] [--out build/bench]

Writes NAME.json for each benchmark, and benchmarks.md from all JSON files in the folder. All systems serve
the same generated checkpoints, with one thread for each engine.
"""

import argparse
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import uvloop

from loadtests.bench.measure import FULL, QUICK, Scale
from loadtests.bench.rows import Result
from loadtests.bench.sections import latency, mix, overload, recipe, router_alone, throughput
from loadtests.bench.sections.section import Section, Setup
from loadtests.bench.servers import Servers
from loadtests.bench.summary import markdown

# Neighbours share engines.
SECTIONS: dict[str, Section] = {
    "router": router_alone.SECTION,
    "throughput": throughput.SECTION,
    "mix": mix.SECTION,
    "latency": latency.SECTION,
    "overload": overload.SECTION,
    "recipe-nano": recipe.NANO,
    "recipe-tiny": recipe.TINY,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer, shorter rounds and no three pools")
    parser.add_argument("--only", action="append", choices=SECTIONS, help="this benchmark; may be repeated")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="default: %(default)s")
    options = parser.parse_args()
    scale = QUICK if options.quick else FULL
    names = options.only or [name for name, section in SECTIONS.items() if section.quick or not scale.quick]
    _allow_many_connections()
    options.out.mkdir(parents=True, exist_ok=True)
    run(names, scale, options.out)
    results = read_results(options.out)
    report = markdown(results)
    (options.out / "benchmarks.md").write_text(report)
    print(report)
    return 0


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
        servers.stop()


def read_results(out: Path) -> dict[str, Result]:
    """Results by name, also those of earlier runs."""
    paths = {name: out / f"{name}.json" for name in SECTIONS}
    return {
        name: msgspec.json.decode(path.read_bytes(), type=Result)
        for name, path in paths.items()
        if path.exists()
    }


def machine() -> str:
    """The number and model of the processors."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.machine()
    return f"{os.cpu_count()} cores, {model}, Python {platform.python_version()}"


def revision() -> str:
    """The commit, marked if the tree has changes."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=Path(__file__).parent
    )
    return described.stdout.strip() or "no git revision"


def _allow_many_connections() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 1 << 16)), hard))


if __name__ == "__main__":
    sys.exit(main())
