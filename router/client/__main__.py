"""`python -m router.client`: commands for a running deployment.

    embed IN OUT   embed a whole file; after a stop, the same command continues
    verify         compare the deployment's vectors with published cosines

Exit status: 0 done; 1 an error on the way, or cosines that differ; 2 not possible as asked; 3 done, but rows
failed; 130 stopped with Ctrl-C.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from triptych.router.client.bulk.job import Job
from triptych.router.client.bulk.problems import Refused, RowFailed
from triptych.router.client.errors import SpaceMismatch, TriptychError
from triptych.router.client.requests import MAX_ITEMS, TASKS

URL = "http://127.0.0.1:8080"
# Not an option, because every user of the machine could see it in the list of processes.
KEY_VARIABLE = "TRIPTYCH_API_KEY"
FAILED, REFUSED, ROWS_FAILED, STOPPED = 1, 2, 3, 130
CONTINUES = "The same command continues"


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return _embed(options) if options.command == "embed" else _verify(options)
    except Refused as error:
        return _say(f"error: {error}", REFUSED)
    except RowFailed as error:
        advice = "--on-error skip makes such rows NaN; --truncate truncates texts that are too long."
        return _say(f"error: {error}\nFinished batches are kept. {advice}", FAILED)
    except (TriptychError, OSError) as error:
        kept = f"\nFinished batches are kept. {CONTINUES}." if options.command == "embed" else ""
        return _say(f"error: {error}{kept}", FAILED)
    except ValueError as error:
        return _say(f"error: {error}", REFUSED)
    except KeyboardInterrupt:
        return _say(f"stopped; {CONTINUES}", STOPPED)


def _parser() -> argparse.ArgumentParser:
    def between(low: int, high: int | None = None) -> Callable[[str], int]:
        def number(text: str) -> int:
            value = int(text)
            if value < low or (high is not None and value > high):
                raise argparse.ArgumentTypeError(
                    f"must be a number from {low}{'' if high is None else f' to {high}'}, not {text}"
                )
            return value

        return number

    parser = argparse.ArgumentParser(
        prog="python -m router.client", epilog=f"An API key is read from {KEY_VARIABLE}."
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--url", default=URL, help=f"address of the deployment (default {URL})")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser(
        "verify", parents=[common], help="compare the deployment's vectors with published cosines"
    )
    embed = commands.add_parser(
        "embed", parents=[common], help="embed a whole file; after a stop, the same command continues"
    )
    add = embed.add_argument
    add("source", metavar="IN", type=Path, help=".jsonl, .csv, .parquet, or text with one input per line")
    add("out", metavar="OUT", type=Path, help=".npy, or .parquet with row numbers")
    add("--column", default="text", help="field or column to embed (default text)")
    add("--id", metavar="COLUMN", help="field or column to copy into a .parquet OUT as `id`")
    add("--model", help="model (default: the first one that is served)")
    add("--task", choices=TASKS, default="retrieval.passage", help="default retrieval.passage")
    add("--dimensions", type=between(1, 2048), metavar="N", help="values per vector (default: all)")
    add("--truncate", action="store_true", help="truncate texts that are too long instead of refusing them")
    add("--dtype", choices=("float32", "float16"), default="float32", help="default float32")
    add(
        "--batch",
        type=between(1, MAX_ITEMS),
        default=256,
        metavar="N",
        help="rows per request (default 256)",
    )
    add("--concurrency", type=between(1), default=8, metavar="N", help="concurrent requests (default 8)")
    add("--timeout", type=float, default=300.0, metavar="S", help="seconds per request (default 300)")
    add("--max-wait", type=float, default=600.0, metavar="S",
        help="seconds to wait for a server that is busy or down (default 600)")  # fmt: skip
    add("--on-error", choices=("stop", "skip"), default="stop",
        help="at a row that cannot be embedded: stop (default), or list it in OUT.failed.jsonl")  # fmt: skip
    return parser


def _embed(options: argparse.Namespace) -> int:
    from triptych.router.client.asynchronous import AsyncClient
    from triptych.router.client.bulk.progress import Bar
    from triptych.router.client.bulk.run import run

    job = Job(
        source=options.source,
        out=options.out,
        column=options.column,
        id=options.id,
        model=options.model,
        task=options.task,
        dimensions=options.dimensions,
        truncate=options.truncate or None,
        batch=options.batch,
        dtype=options.dtype,
        concurrency=options.concurrency,
        skip=options.on_error == "skip",
    )

    def connect() -> AsyncClient:
        return AsyncClient(
            options.url,
            os.environ.get(KEY_VARIABLE),
            timeout=options.timeout,
            retries=sys.maxsize,
            max_wait=options.max_wait,
        )

    started = time.monotonic()
    try:
        with Bar() as bar:
            done = run(job, connect, bar.progress)
    except SpaceMismatch as error:
        advice = f"The server has other weights than before. Serve the same again, or {job.start_over}"
        return _say(f"error: {error}\n{advice}", REFUSED)
    seconds = time.monotonic() - started
    now = done.rows - done.earlier
    _say(f"{done.rows} rows in {job.out}: {now} now, in {seconds:.1f} s ({now / seconds:.1f} items/s)", 0)
    if done.failures:
        count, where = len(done.failures), job.beside("failed.jsonl")
        return _say(f"{count} of them failed and are NaN; {where} lists them with reasons", ROWS_FAILED)
    return 0


def _verify(options: argparse.Namespace) -> int:
    from triptych.router.client.synchronous import Client
    from triptych.router.client.verify import verify

    with Client(options.url, os.environ.get(KEY_VARIABLE), max_wait=20) as client:
        passes, report = verify(client)
    print(report)
    return 0 if passes else FAILED


def _say(text: str, status: int) -> int:
    print(text, file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
