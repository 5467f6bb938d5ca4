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
    value = pa.from_numpy_dtype(matrix.dtype)
    fields = [pa.field("row", pa.int64()), pa.field("embedding", pa.list_(value, matrix.width))]
    if ids is not None:
        fields.insert(1, pa.field("id", pa.string()))
    schema = pa.schema(fields)
    group = max(1, GROUP_BYTES // matrix.row_bytes)
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for start in range(0, matrix.rows, group):
            stop = min(start + group, matrix.rows)
            vectors = pa.array(matrix.read(start, stop).reshape(-1))
            columns = [
                pa.array(np.arange(start, stop)),
                pa.FixedSizeListArray.from_arrays(vectors, matrix.width),
            ]
            if ids is not None:
                texts = [_text(value) for value in islice(ids, stop - start)]
                columns.insert(1, pa.array(texts, pa.string()))
            writer.write_table(pa.Table.from_arrays(columns, schema=schema), row_group_size=group)


def _text(value: Any) -> str | None:
    return None if value is None or isinstance(value, BadRow) else without_lone_surrogates(str(value))
