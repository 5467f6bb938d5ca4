"""A whole bulk run. It reads no further ahead than it sends, and may be stopped at any moment."""

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import NamedTuple

import numpy as np
import orjson
from tqdm import tqdm

from triptych.router.client.bulk import source
from triptych.router.client.bulk.batches import embed_batch
from triptych.router.client.bulk.job import Job
from triptych.router.client.bulk.journal import Failures, Journal
from triptych.router.client.bulk.matrix import Matrix
from triptych.router.client.bulk.problems import BadRow, Refused, RowFailed
from triptych.router.client.bulk.source import Row
from triptych.router.client.clients import AsyncClient, each
from triptych.router.client.errors import ReplyInvalid, SpaceMismatch, StatusError
from triptych.router.client.replies import Floats


class Outcome(NamedTuple):
    """A finished run: all rows, rows done by earlier runs, and failed rows."""

    rows: int
    earlier: int
    failures: Failures


def run(job: Job, client: AsyncClient) -> Outcome:
    """Do `job`, or continue it. Shows a progress bar if stderr is a terminal, and closes `client`.

    Raises `Refused` if it cannot start or continue, `RowFailed` at a row that fails, and the client's errors.
    Finished batches are kept then, and also if the process is killed.
    """
    job.check()
    digest = source.digest(job.source)
    rows = _survey(job)
    with Journal(job.journal, job.about(digest, rows), job.start_over) as journal:
        earlier = sum(min(job.batch, rows - number * job.batch) for number in journal.done)
        if not job.out.exists():
            try:
                asyncio.run(_embed_all(job, rows, earlier, journal, client))
            except SpaceMismatch as error:
                advice = "The server has other weights than before. Serve the same again, or"
                raise Refused(f"{error}\n{advice} {job.start_over}") from error
            # Rows that were removed would be vectors of zeros.
            if source.digest(job.source) != digest:
                raise Refused(f"{job.source} has changed during the run; {job.start_over}")
            _finish(job, rows, journal)
        elif earlier < rows:
            raise Refused(f"{job.out} exists, but {job.journal} says that it is not done; remove one of them")
        _clear(job)
        return Outcome(rows, earlier, journal.failures)


def _survey(job: Job) -> int:
    """Count the rows. Raises now, not hours later, if one of them cannot be read."""
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
    """The number and the rows of each batch."""
    rows = source.rows(job.source, job.column)
    return enumerate(iter(lambda: list(islice(rows, job.batch)), []))


async def _embed_all(job: Job, rows: int, earlier: int, journal: Journal, client: AsyncClient) -> None:
    """Embed all batches that are not done yet."""
    loop = asyncio.get_running_loop()
    # The first vector decides the width. A file without vectors in the journal is left from another run.
    matrix = Matrix(job.partial) if earlier > len(journal.failures) else None

    def keep(number: int, vectors: Floats | None, failures: Failures) -> None:
        nonlocal matrix
        if vectors is not None:
            if matrix is None:
                dtype = np.dtype(job.dtype).newbyteorder("<")
                # At the end, a .parquet file is written beside it.
                copies = 2 if job.out.suffix == ".parquet" else 1
                matrix = Matrix.create(job.partial, rows, vectors.shape[1], dtype, copies)
            matrix.write(vectors, [number * job.batch])
        journal.add(number, failures)

    async def one(batch: tuple[int, Sequence[Row]]) -> None:
        number, some = batch
        embed = partial(client.embed, priority="bulk", vector_space=journal.space, **job.options)
        vectors, failures = await embed_batch(embed, number * job.batch, some, job.skip)
        # One thread, so that waiting for the disk does not delay the network.
        await loop.run_in_executor(writer, keep, number, vectors, failures)
        bar.update(len(some))

    # Rows of earlier runs do not count for the speed.
    with (
        ThreadPoolExecutor(1) as writer,
        tqdm(total=rows, initial=earlier, unit="items", unit_scale=True, smoothing=0.1, disable=None) as bar,
    ):
        async with client:
            if earlier < rows:
                await _pin_space(client, job, journal)
            missing = (batch for batch in _batches(job) if batch[0] not in journal.done)
            await each(job.concurrency, missing, one)


async def _pin_space(client: AsyncClient, job: Job, journal: Journal) -> None:
    """Set the vector space that every request of the run requires: the first one that the server names.

    Raises `ConnectionLost` at once if the server does not answer, since its address is probably wrong. Later
    the client waits for a server that restarts.
    """
    spaces = await _spaces(client)
    if journal.done:
        if journal.space is None:
            raise Refused(f"the server named no vector space when this run started; {job.start_over}")
        return
    if not spaces or not all(spaces.values()):
        # A pool has no worker now, perhaps the pool of this run. Embedding a text waits for one.
        await client.embed("a text", model=job.model, task=job.task, priority="bulk")
        spaces = await _spaces(client)
    journal.begin(",".join(f"{pool}={served[0]}" for pool, served in spaces.items() if served) or None)


async def _spaces(client: AsyncClient) -> Mapping[str, list[str]]:
    with suppress(ReplyInvalid, StatusError):
        return (await client.ready()).vector_spaces
    return {}


def _finish(job: Job, rows: int, journal: Journal) -> None:
    """Make the output from the vectors. Each step can be repeated after a crash."""
    failures = journal.failures
    failed = job.beside("failed.jsonl")
    failed.unlink(missing_ok=True)
    if failures:
        lines = [orjson.dumps({"row": row, "reason": failures[row]}) for row in sorted(failures)]
        failed.write_bytes(b"\n".join([*lines, b""]))
    if len(failures) == rows:
        # Without this, the same command would fail again although the server may work now.
        _clear(job)
        first = min(failures)
        raise Refused(
            f"all {rows} rows failed; row {first}: {failures[first]}. {failed} lists them; the same "
            "command tries again"
        )
    whole = job.partial
    matrix = Matrix(job.partial)
    # Batches of which all rows failed were not written.
    matrix.write(np.full((1, matrix.width), np.nan), failures)
    if job.out.suffix == ".parquet":
        from triptych.router.client.bulk import parquet

        whole = job.beside("whole")
        ids = source.values(job.source, job.id) if job.id is not None else None
        parquet.write(whole, matrix, ids)
        with whole.open("rb") as file:
            os.fsync(file.fileno())
    whole.rename(job.out)


def _clear(job: Job) -> None:
    """Remove the files of an unfinished run, the journal last."""
    job.partial.unlink(missing_ok=True)
    job.journal.unlink()
