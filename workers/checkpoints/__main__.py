"""`python -m workers.checkpoints`: the commands tiny, merge and verify."""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from triptych.workers.checkpoints import layout
from triptych.workers.checkpoints.layouts import MERGED
from triptych.workers.checkpoints.space import Advance
from triptych.workers.shared.families import BY_NAME


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Exit status: 0 success, 1 refused with the reason on stderr, or not servable."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except (layout.CheckpointError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m workers.checkpoints", description="Make, merge and verify checkpoints."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    tiny = commands.add_parser("tiny", help="write a random checkpoint in the layout of a published model")
    tiny.add_argument("out", type=Path, metavar="OUT")
    tiny.add_argument("--model", choices=[family.name for family in MERGED], default=MERGED[0].name)
    tiny.add_argument(
        "--nano", action="store_true", help="hidden size 64, one layer, for benchmarks; only v4"
    )
    tiny.add_argument("--seed", type=int, default=0)
    tiny.set_defaults(run=_tiny)

    merge = commands.add_parser("merge", help="merge adapters into the base, one variant per pool")
    merge.add_argument(
        "source", metavar="SRC", help="a base with its adapters: a folder, or a Hugging Face id"
    )
    merge.add_argument("out", type=Path, metavar="OUT", help="variants are written to OUT/<pool>")
    pools = [pool for family in MERGED for pool in family.pools]
    merge.add_argument("--task", choices=pools, action="append", help="only this pool; may be repeated")
    merge.add_argument("--dtype", choices=("source", "float32"), default="source")
    merge.add_argument("--force", action="store_true", help="replace existing folders")
    merge.add_argument("--revision", help="revision of the Hugging Face id")
    merge.set_defaults(run=_merge)

    verify = commands.add_parser("verify", help="report what a folder is and whether it can be served")
    verify.add_argument("folder", type=Path, metavar="DIR")
    verify.add_argument("--json", action="store_true")
    verify.add_argument("--full", action="store_true", help="read the weights and compare their digest")
    verify.set_defaults(run=_verify)
    return parser


def _tiny(options: argparse.Namespace) -> int:
    from triptych.workers.checkpoints.tiny import NANO, TINY, write_tiny

    size = NANO if options.nano else TINY
    write_tiny(BY_NAME[options.model], options.out, size, options.seed, progress=_bar)
    print(f"{options.out}: random weights in the layout of {options.model}; its vectors have no meaning")
    return 0


def _merge(options: argparse.Namespace) -> int:
    from triptych.workers.checkpoints.hub import resolve_source
    from triptych.workers.checkpoints.merge import merge

    merge(
        resolve_source(options.source, options.revision),
        options.out,
        list(dict.fromkeys(options.task or ())),
        float32=options.dtype == "float32",
        force=options.force,
        say=print,
        progress=_bar,
    )
    return 0


def _verify(options: argparse.Namespace) -> int:
    from triptych.workers.checkpoints.inspection import verify

    report = verify(options.folder, full=options.full, progress=_bar)
    print(report.as_json() if options.json else report.as_text())
    return 0 if report.servable else 1


def _bar(title: str, nbytes: int) -> Advance:
    bar = tqdm(desc=title, total=nbytes, unit="B", unit_scale=True)

    def advance(done: int) -> None:
        bar.update(done)
        if bar.n >= nbytes:
            bar.close()

    return advance


if __name__ == "__main__":
    sys.exit(main())
