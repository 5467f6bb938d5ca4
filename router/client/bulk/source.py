"""Streams the rows of a file. Changes when a format is added.

A row is a text, an item as a dict (.jsonl), or a `BadRow` with a reason. A bad row does not affect others.
Blank lines are skipped in .jsonl and .csv, and are rows in other text files; these have one column, `text`.
Only the current row is in memory, or a few rows of a .parquet file.
"""

import csv
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from triptych.router.client.bulk.problems import BadRow, Refused, no_column
from triptych.router.client.requests import without_lone_surrogates

_BOM = b"\xef\xbb\xbf"
Row = str | dict[str, Any] | BadRow


def rows(path: Path, column: str) -> Iterator[Row]:
    """The rows to embed. Raises `Refused` if the file has no such column."""
    return (_row(value) for value in values(path, column))


def values(path: Path, column: str) -> Iterator[Any]:
    """The values of a column. The file's name decides the format."""
    match path.suffix.lower():
        case ".jsonl" | ".ndjson" | ".json":
            return _jsonl(path, column)
        case ".csv":
            return _csv(path, column)
        case ".parquet":
            from triptych.router.client.bulk import parquet

            return parquet.values(path, column)
        case _:
            return _lines(path, column)


def digest(path: Path) -> str:
    """Digest of the file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=32)).hexdigest()


def _row(value: Any) -> Row:
    match value:
        case {"pdf": _}:
            return BadRow("is a PDF, which gives one vector per page")
        case BadRow() | dict():
            return value
        case str(text):
            try:
                text.encode()
            except UnicodeEncodeError:
                # Bytes that are not UTF-8 were decoded to lone surrogates.
                return BadRow("not UTF-8")
            return text
        case None:
            return BadRow("has no value")
        case _:
            return BadRow(f"is {type(value).__name__}, not a text")


def _lines(path: Path, column: str) -> Iterator[str]:
    if column != "text":
        raise no_column(path, column, ["text"])
    for line in _raw_lines(path):
        yield line.decode("utf-8", "surrogateescape")


def _raw_lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        for number, line in enumerate(file):
            yield (line.removeprefix(_BOM) if number == 0 else line).removesuffix(b"\n").removesuffix(b"\r")


def _jsonl(path: Path, column: str) -> Iterator[Any]:
    for number, line in enumerate(line for line in _raw_lines(path) if line.strip()):
        try:
            record = _json(line)
        except ValueError as error:
            yield BadRow(f"is not JSON: {error}")
            continue
        if not isinstance(record, dict):
            yield BadRow("is not a JSON object")
        elif column not in record and number == 0:
            raise no_column(path, column, record)
        else:
            yield record.get(column, BadRow(f"has no field {column!r}"))


def _json(line: bytes) -> Any:
    """Parse a line. A lone surrogate escape becomes U+FFFD, as in the router. Raises ValueError."""
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        if "surrogate in string" not in str(error):
            raise
    return without_lone_surrogates(json.loads(line.decode()))


def _csv(path: Path, column: str) -> Iterator[Any]:
    # The default limit is too low for documents.
    csv.field_size_limit(1 << 30)
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        # Strict, since otherwise a quote that is not closed takes all further rows.
        reader = csv.DictReader(file, strict=True)
        try:
            if column not in (reader.fieldnames or ()):
                raise no_column(path, column, reader.fieldnames or ())
            for record in reader:
                # Values that no header names, after a comma that is not quoted, are under None.
                extra = any(record.get(None, ()))
                yield BadRow("has more values than the header") if extra else record[column]
        except csv.Error as error:
            raise Refused(f"{path}, after line {reader.line_num}: {error}") from None
