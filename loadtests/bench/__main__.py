"""Compare Triptych with other servers of the same vectors, side by side on this machine in one run.

    triptych bench [--gpu] [--quick] [--only NAME] [--budget SECONDS] [--out FOLDER]

All systems serve the same generated checkpoints. After each benchmark bench.json and bench.md are written
again; results of earlier runs into the same folder stay. A benchmark that fails is reported with its error.
Then the next one runs. With --gpu, the checkpoints have the model's size, and each may take three minutes.
"""

import argparse
import asyncio
import os
import resource
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import uvloop

from triptych.loadtests.bench import card
from triptych.loadtests.bench.bench_report import markdown
from triptych.loadtests.bench.measure import Bench, Result, Scale
from triptych.loadtests.bench.sections import SECTIONS
from triptych.loadtests.bench.servers import Servers, SizeName
from triptych.loadtests.provenance import machine, revision

FULL = Scale(rounds=5, seconds=1.5)
QUICK = Scale(rounds=2, seconds=0.6, quick=True)
GPU_SCALES: Mapping[SizeName, Scale] = {
    # Rounding depends on the batch: values of a unit vector move by some thousandths.
    "full": Scale(rounds=2, seconds=4, settle_seconds=0.5, tolerance=0.01),
    "nano": Scale(rounds=1, seconds=0.3, quick=True),
}
SECTION_SECONDS = 180.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks. Exit status: 1 if one ended early or was not run."""
    parser = argparse.ArgumentParser(
        prog="triptych bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--gpu", action="store_true", help="measure on this machine's GPU")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--only", action="append", choices=SECTIONS, help="this benchmark; may be repeated")
    parser.add_argument("--budget", type=float, default=2700, help="with --gpu: seconds for all (2700)")
    size = "full" if card.name() else "nano"
    parser.add_argument("--size", choices=GPU_SCALES, default=size, help="with --gpu: full; nano without one")
    parser.add_argument("--out", type=Path, help="default: build/bench, build/gpu or build/gpu-nano")
    options = parser.parse_args(arguments)
    if options.gpu and options.quick:
        parser.error("--quick is for benchmarks without --gpu; --budget shortens those")
    folder = "bench"
    if options.gpu:
        folder = "gpu" if options.size == "full" else f"gpu-{options.size}"
    out = options.out or Path("build", folder)
    # An open loop beyond the capacity has thousands of connections.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 1 << 16)), hard))
    (out / "servers").mkdir(parents=True, exist_ok=True)
    try:
        report = read(out)
    except ValueError as error:
        parser.error(str(error))
    bench = Bench(Servers(out / "servers"), QUICK if options.quick else FULL, options.size, report)
    names = options.only or [
        name
        for name, section in SECTIONS.items()
        if section.gpu == options.gpu and (section.quick or not options.quick)
    ]
    try:
        uvloop.run(run(bench, names, options.budget, out))
    finally:
        bench.servers.stop()
    print(markdown(bench.report))
    return int(any(bench.report[name].error for name in names))


async def run(bench: Bench, names: Sequence[str], budget: float, folder: Path) -> None:
    """Run benchmarks one after another, and write the report after each.

    An error ends one of them and becomes part of its result.
    """
    end = time.monotonic() + budget
    for number, name in enumerate(names, 1):
        section, scale = SECTIONS[name], bench.scale
        seconds, where = None, machine()
        if section.gpu:
            scale = GPU_SCALES[bench.size]
            seconds = max(0.0, min(SECTION_SECONDS, end - time.monotonic()))
            where = f"{card.name() or 'no GPU'}; {where}"
        print(f"[{number}/{len(names)}] {name}: {section.title}", file=sys.stderr)
        result = Result(
            name=name,
            title=section.title,
            quick=scale.quick,
            began=time.strftime("%Y-%m-%d %H:%M"),
            machine=where,
            revision=revision(),
        )
        clock = time.monotonic()
        try:
            async with asyncio.timeout(seconds) as limit:
                await section.run(bench._replace(scale=scale), result)
        except Exception as error:
            # A section may raise its own TimeoutError.
            if limit.expired():
                result.error = f"{seconds:.0f} s were not enough: a section's limit, or the rest of --budget"
            else:
                result.error = f"{type(error).__name__}: {error}"
                traceback.print_exc()
        result.seconds = time.monotonic() - clock
        print(result.error or f"{result.seconds:.0f} s", file=sys.stderr)
        bench.report[name] = result
        write(bench.report, folder)


def read(folder: Path) -> dict[str, Result]:
    """The results in a folder by name; empty before the first run. Raises `ValueError`."""
    file = folder / "bench.json"
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, Result]) if file.exists() else {}
    except msgspec.DecodeError as error:
        raise ValueError(f"{file}: {error}; remove it, or give another --out") from None


def write(report: Mapping[str, Result], folder: Path) -> None:
    """Write `bench.json` and `bench.md`. A run that is killed here leaves the old files."""
    data = msgspec.json.format(msgspec.json.encode(report), indent=1)
    for name, content in {"bench.json": data, "bench.md": markdown(report).encode()}.items():
        (folder / f"{name}.new").write_bytes(content)
        os.replace(folder / f"{name}.new", folder / name)


if __name__ == "__main__":
    sys.exit(main())
