"""A bulk run from begin to end: reads no further ahead than it sends, and can be ended at any moment."""

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import Any, NamedTuple

import orjson

from router.client.asynchronous import AsyncClient
from router.client.bulk import source
from router.client.bulk.batches import Embed, embed_batch, is_of_a_row
from router.client.bulk.job import Job
from router.client.bulk.journal import Failures, Journal
from router.client.bulk.matrix import Matrix
from router.client.bulk.problems import BadRow, Refused, RowFailed
from router.client.bulk.source import Row
from router.client.bulk.store import Store
from router.client.errors import ReplyInvalid, StatusError
from router.client.replies import Floats

# How many rows that are done may be tried when a run goes on; each costs a request, one after the other.
EXAMPLES = 16
EXAMPLES_OF_A_BATCH = 2

Connect = Callable[[], AsyncClient]
Progress = Callable[[int, int, int], None]
"""Told of (rows in all, rows done before this run, rows just done)."""


class Outcome(NamedTuple):
    """What a finished run did: all rows, those that an earlier run had done, and those that failed."""

    rows: int
    earlier: int
    failures: Failures


def run(job: Job, connect: Connect, progress: Progress) -> Outcome:
    """Do `job`, or what is left of it.

    Raises `Refused` when it cannot be done as asked for, `RowFailed` at a row that fails, and what the client
    raises. What is done by then stays done, as it does when the process is killed.
    """
    job.check()
    rows = _survey(job)
    with Journal(job.journal, job.about(source.digest(job.source), rows), job.start_over) as journal:
        earlier = job.count(journal.done, rows)
        progress(rows, earlier, 0)
        if not job.out.exists():
            asyncio.run(_embed_all(job, rows, journal, connect, progress))
            _finish(job, rows, journal)
        elif earlier < rows:
            raise Refused(f"{job.out} is there, but {job.journal} says it is not done; remove one of them")
        _clear(job)
        return Outcome(rows, earlier, journal.failures)


def _survey(job: Job) -> int:
    """How many rows there are. Says now, not hours later, that one of them cannot even be read."""
    if job.id is not None:
        next(source.values(job.source, job.id), None)
    count = 0
    for count, row in enumerate(source.rows(job.source, job.column), 1):
        if isinstance(row, BadRow) and not job.skip:
            raise RowFailed(count - 1, row.reason)
    if not count:
        raise Refused(f"{job.source} has no rows")
    return count


def _batches(job: Job) -> Iterator[tuple[int, list[Row]]]:
    rows = source.rows(job.source, job.column)
    number = 0
    while some := list(islice(rows, job.batch)):
        yield number, some
        number += 1


async def _embed_all(job: Job, rows: int, journal: Journal, connect: Connect, progress: Progress) -> None:
    """Every batch that is not done yet; returns when all are on disk and in the journal."""
    loop = asyncio.get_running_loop()
    free = asyncio.Semaphore(job.concurrency)
    # Left last to first: the writer ends what it has begun before the files are closed.
    with Store(job, rows, journal) as store, ThreadPoolExecutor(1) as writer:
        async with connect() as client:
            space: str | None = None

            async def embed(items: list[str | dict[str, Any]]) -> Floats:
                return await client.embed(
                    items,
                    task=job.task,
                    dimensions=job.dimensions,
                    truncate=job.truncate,
                    priority="bulk",
                    vector_space=space,
                )

            async def one(number: int, some: Sequence[Row]) -> None:
                vectors, failures = await embed_batch(embed, number * job.batch, some, job.skip)
                # One thread, so that waiting for the disk does not hold up the network.
                await loop.run_in_executor(writer, store.keep, number, vectors, failures)
                progress(rows, 0, len(some))
                free.release()

            if job.count(journal.done, rows) < rows:
                space = await _reach(client)
                if store.has_vectors:
                    # Before any batch begins: what begins may be kept.
                    await _recognise(job, journal, store, embed)
            try:
                async with asyncio.TaskGroup() as group:
                    for number, some in _batches(job):
                        if number not in journal.done:
                            await free.acquire()
                            group.create_task(one(number, some))
            except BaseExceptionGroup as errors:
                first = errors.exceptions[0]
                raise first from first.__cause__


async def _reach(client: AsyncClient) -> str | None:
    """The vector space of each pool that the run's vectors have to be of, None if the server names none.

    Raises `ConnectionLost` at once when the server is not there: most likely the address is wrong. Later a
    server that does not answer is waited for, as one that restarts.
    """
    with suppress(ReplyInvalid):
        spaces = (await client.ready()).vector_spaces
        return ",".join(f"{pool}={served[0]}" for pool, served in spaces.items() if served) or None
    return None


async def _recognise(job: Job, journal: Journal, store: Store, embed: Embed) -> None:
    """Raise `Refused` unless the server gives the vector that is there for a row that is done.

    A row that it no longer takes (an image may have gone since) says nothing, so the next one is tried. When
    none of some can be compared, nobody knows which weights it serves, and that is refused too.
    """
    gone = []
    for row, item in islice(_examples(job, journal), EXAMPLES):
        try:
            vector = (await embed([item]))[0]
        except StatusError as error:
            if not is_of_a_row(error):
                raise
            gone.append(f"row {row}: {error.code}: {error.detail}")
        else:
            return store.compare(row, vector)
    raise Refused(
        f"none of {len(gone)} rows that are done can be embedded again, to tell whether the server has the "
        f"same weights; {gone[0]}. Mend that, or {job.start_over}"
    )


def _examples(job: Job, journal: Journal) -> Iterator[tuple[int, str | dict[str, Any]]]:
    """Rows that have a vector, with their numbers: a few of each batch, for neighbours fail together."""
    for batch, rows in _batches(job):
        if batch in journal.done:
            good = (
                (number, row)
                for number, row in enumerate(rows, batch * job.batch)
                if number not in journal.failures and not isinstance(row, BadRow)
            )
            yield from islice(good, EXAMPLES_OF_A_BATCH)


def _finish(job: Job, rows: int, journal: Journal) -> None:
    """From the vectors so far to the output, in steps that can each be done again."""
    failures = journal.failures
    failed = job.beside("failed.jsonl")
    failed.unlink(missing_ok=True)
    if failures:
        lines = [orjson.dumps({"row": row, "reason": failures[row]}) for row in sorted(failures)]
        failed.write_bytes(b"\n".join([*lines, b""]))
    if len(failures) == rows:
        # Else the journal would say so again to the same command, though the server has been mended since.
        _clear(job)
        first = min(failures)
        raise Refused(
            f"all {rows} rows failed; row {first}: {failures[first]}. {failed} lists them; the same "
            "command tries again"
        )
    whole = job.partial
    with Matrix.open(job.partial) as matrix:
        matrix.blank(sorted(failures))
        if job.out.suffix == ".parquet":
            from router.client.bulk import parquet

            whole = job.beside("whole")
            ids = source.values(job.source, job.id) if job.id is not None else None
            parquet.write(whole, matrix, ids)
            with whole.open("rb") as file:
                os.fsync(file.fileno())
    whole.rename(job.out)


def _clear(job: Job) -> None:
    """Remove what only an unfinished run has; the journal last, which says what the rest is."""
    job.partial.unlink(missing_ok=True)
    job.journal.unlink()
