"""The rows of a file as a stream: changes when a format is added.

A row is a text, an item as a dict (.jsonl), or a `BadRow` that says why it is neither; one that cannot be
read takes no other with it. Blank lines of .jsonl and .csv are no rows; a line of any other text file always
is. Nothing is held but the row at hand (of a .parquet file, some rows).
"""

import csv
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from router.client.bulk.problems import BadRow, Refused, no_column
from router.client.surrogates import without_lone_surrogates

_BOM = b"\xef\xbb\xbf"


Row = str | dict[str, Any] | BadRow


def rows(path: Path, column: str) -> Iterator[Row]:
    """What is to be embedded, row by row. Raises `Refused` when the file has no such column."""
    return (_row(value) for value in values(path, column))


def values(path: Path, column: str) -> Iterator[Any]:
    """A column's values as they are in the file; the format goes by the file's name."""
    match path.suffix.lower():
        case ".jsonl" | ".ndjson":
            return _jsonl(path, column)
        case ".csv":
            return _csv(path, column)
        case ".parquet":
            from router.client.bulk import parquet

            return parquet.values(path, column)
        case _:
            return _lines(path)


def digest(path: Path) -> str:
    """Of the file's whole content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=32)).hexdigest()


def _row(value: Any) -> Row:
    match value:
        case {"pdf": _}:
            return BadRow("is a PDF, which gives a vector for each page and not one")
        case BadRow() | dict():
            return value
        case str(text):
            # Bytes that are no UTF-8 arrive as lone surrogates, which cannot be sent.
            return text if text.isascii() or not _has_surrogates(text) else BadRow("not UTF-8")
        case None:
            return BadRow("has no value")
        case _:
            return BadRow(f"is not a text but {type(value).__name__}")


def _has_surrogates(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _lines(path: Path) -> Iterator[str]:
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
        elif column in record:
            yield record[column]
        elif number == 0:
            raise no_column(path, column, record)
        else:
            yield BadRow(f"has no field {column!r}")


def _json(line: bytes) -> Any:
    """The value of a line; a lone surrogate escape becomes U+FFFD, as in the router. Raises ValueError."""
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        if "surrogate in string" not in str(error):
            raise
    return without_lone_surrogates(json.loads(line.decode()))


def _csv(path: Path, column: str) -> Iterator[Any]:
    # The limit is there against files with a quote that never ends, and too low for documents.
    csv.field_size_limit(1 << 30)
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.DictReader(file)
        if column not in (reader.fieldnames or ()):
            raise no_column(path, column, reader.fieldnames or ())
        try:
            for record in reader:
                yield record[column]
        except csv.Error as error:
            raise Refused(f"{path}, line {reader.line_num}: {error}") from None
