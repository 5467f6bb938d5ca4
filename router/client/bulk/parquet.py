"""Reads a column from .parquet and writes the finished matrix as .parquet. Needs pyarrow."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from triptych.router.client.bulk.matrix import Matrix
from triptych.router.client.bulk.problems import BadRow, Refused, no_column
from triptych.router.client.requests import without_lone_surrogates

try:
    import pyarrow as pa
    from pyarrow import parquet as pq
except ModuleNotFoundError:
    raise Refused("this needs pyarrow, which is not installed: pip install 'triptych[bulk]'") from None

# Rows per read, and bytes of vectors per row group.
READ_ROWS = 1024
GROUP_BYTES = 32 << 20


def values(path: Path, column: str) -> Iterator[Any]:
    """The column's values, in order."""
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise Refused(f"{path} cannot be read as .parquet: {error}") from None
    with file:
        names = file.schema_arrow.names
        if column not in names:
            raise no_column(path, column, names)
        for batch in file.iter_batches(batch_size=READ_ROWS, columns=[column]):
            yield from batch.column(0).to_pylist()


def write(path: Path, matrix: Matrix, ids: Iterator[Any] | None) -> None:
    """Write the columns `row`, `id` (text, if there are ids) and `embedding`. Failed rows are NaN."""

    def table(start: int, stop: int) -> Any:
        columns = {"row": pa.array(np.arange(start, stop))}
        if ids is not None:
            columns["id"] = pa.array([_text(value) for value in islice(ids, stop - start)], pa.string())
        vectors = pa.array(matrix.read(start, stop).reshape(-1))
        columns["embedding"] = pa.FixedSizeListArray.from_arrays(vectors, matrix.width)
        return pa.table(columns)

    group = max(1, GROUP_BYTES // matrix.row_bytes)
    with pq.ParquetWriter(path, table(0, 0).schema, compression="none", use_dictionary=False) as writer:
        for start in range(0, matrix.rows, group):
            stop = min(start + group, matrix.rows)
            writer.write_table(table(start, stop), row_group_size=group)


def _text(value: Any) -> str | None:
    return None if value is None or isinstance(value, BadRow) else without_lone_surrogates(str(value))
