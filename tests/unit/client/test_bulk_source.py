"""The rows of each file format, and bad rows."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from triptych.router.client.bulk import source
from triptych.router.client.bulk.problems import Refused
from triptych.router.client.bulk.source import BadRow

TEXTS = ["plain", "", 'with "quotes", commas', "Zürich 海滩 \u2028 one line", " spaces "]


def write(folder: Path, ending: str, texts: list[str], column: str = "text") -> Path:
    """Write texts in the format of `ending`."""
    path = folder / f"corpus.{ending}"
    match ending:
        case "txt":
            path.write_text("\n".join(texts) + "\n")
        case "jsonl":
            path.write_text("".join(json.dumps({"id": i, column: t}) + "\n" for i, t in enumerate(texts)))
        case "csv":
            rows = [f'{i},"{t.replace(chr(34), chr(34) * 2)}"' for i, t in enumerate(texts)]
            path.write_text("\r\n".join([f"id,{column}", *rows]), newline="")
        case "parquet":
            pq.write_table(pa.table({"id": range(len(texts)), column: texts}), path, row_group_size=2)
    return path


def rows(path: Path, column: str = "text") -> list[source.Row]:
    return list(source.rows(path, column))


@pytest.mark.parametrize("ending", ["txt", "jsonl", "csv", "parquet"])
def test_every_format_gives_same_rows(tmp_path: Path, ending: str) -> None:
    assert rows(write(tmp_path, ending, TEXTS)) == TEXTS


def test_text_file_has_one_column(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"no column 'body'; it has: text"):
        rows(write(tmp_path, "txt", TEXTS), "body")


def test_json_file_has_an_object_in_each_line(tmp_path: Path) -> None:
    lines = write(tmp_path, "jsonl", TEXTS).rename(tmp_path / "lines.json")
    assert rows(lines) == TEXTS
    lines.write_text(json.dumps([{"text": "a"}], indent=1))
    assert all(isinstance(row, BadRow) for row in rows(lines))


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_column_is_chosen_by_name(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path, ending, TEXTS, column="body")
    assert rows(path, "body") == TEXTS
    with pytest.raises(Refused, match=r"no column 'text'; it has: id, body") as refused:
        rows(path)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    ("ending", "content", "expected"),
    [
        # Line ends and a byte order mark are removed.
        ("txt", b"\xef\xbb\xbfone\r\ntwo", ["one", "two"]),
        ("csv", b"\xef\xbb\xbftext\r\none\r\n\r\ntwo\r\n", ["one", "two"]),
        ("jsonl", b'\xef\xbb\xbf{"text":"one"}\r\n\r\n{"text":"two"}\n\n', ["one", "two"]),
        # A field may have several lines, and be long.
        ("csv", b'text\n"a\nb"\n' + b"x" * 300_000 + b"\n", ["a\nb", "x" * 300_000]),
        ("txt", b"good\n\xff\nfine\n", ["good", BadRow("not UTF-8"), "fine"]),
        ("csv", b"text\ngood\n\xff\nfine\n", ["good", BadRow("not UTF-8"), "fine"]),
        ("csv", b"id,text\n1,one\n2\n", ["one", BadRow("has no value")]),
        ("csv", b"id,text\n1,one, or two\n2,two,\n", [BadRow("has more values than the header"), "two"]),
    ],
    ids=range(8),
)
def test_odd_files(tmp_path: Path, ending: str, content: bytes, expected: list[source.Row]) -> None:
    path = tmp_path / f"file.{ending}"
    path.write_bytes(content)
    assert rows(path) == expected


def test_bad_row_affects_no_other(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(
        b'{"text": "good"}\n{"text": 7}\n{"text": null}\n{"other": "x"}\nnot json\n["text"]\n'
        b'{"text": "\xff"}\n'
        b'{"text": {"pdf": "AAAA"}}\n{"text": {"image": "AAAA"}}\n'
    )
    found = rows(path)
    assert (found[0], found[8]) == ("good", {"image": "AAAA"})
    reasons = [row.reason for row in found if isinstance(row, BadRow)]
    expected = ["int", "no value", "no field 'text'", "not JSON", "not a JSON object", "not JSON", "PDF"]
    assert len(reasons) == len(expected)
    assert all(part in reason for part, reason in zip(expected, reasons, strict=True)), reasons


def test_jsonl_lone_surrogate_becomes_fffd(tmp_path: Path) -> None:
    path = tmp_path / "cut.jsonl"
    path.write_bytes(
        b'{"text": "half \\ud83d"}\n{"text": {"text": "\\ude00", "task": "code.query"}}\n'
        b'{"text": "\\ud83d"\n{"text": "\\ud83d \xff"}\n'
        b'{"text": "\xed\xa0\xbd"}\n{"text": "\\ud83d\\ude00"}\n'
    )
    found = rows(path)
    assert found[:2] == ["half \ufffd", {"text": "\ufffd", "task": "code.query"}]
    assert all(isinstance(row, BadRow) and "not JSON" in row.reason for row in found[2:5])
    assert found[5:] == ["\U0001f600"]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('id,text\n1,"one\n2,two\n', 1),
        ('"id,text\n1,one\n', 0),
        ('id,text\n1,one\n2,"two" 2\n3,three\n', 2),
    ],
)
def test_csv_quote_that_is_not_closed_is_refused(tmp_path: Path, content: str, line: int) -> None:
    path = tmp_path / "open.csv"
    path.write_text(content)
    with pytest.raises(Refused, match=f"after line {line}:"):
        rows(path)


def test_invalid_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "no.parquet"
    path.write_text("no")
    with pytest.raises(Refused, match="cannot be read"):
        rows(path)
