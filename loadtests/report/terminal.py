"""What a run says in the terminal."""

from collections.abc import Iterator
from itertools import chain

from loadtests.report import tables
from loadtests.report.headline import MARK, Figure, about_chosen, banners, figures
from loadtests.report.tables import Table
from loadtests.report.words import masked
from loadtests.results import Run
from loadtests.slo import Judgement

# Of a column of words; the rest is left out.
WIDEST = 48


def render(run: Run, judgement: Judgement | None = None) -> str:
    """Headline first, then tables. Ends without a line break."""
    blocks = [list(_headline(run, judgement))]
    blocks += [
        list(_table(table))
        for table in (
            tables.loads(run, short=True),
            tables.probes(run),
            tables.clocks(run, short=True),
            tables.failures(run),
        )
        if table is not None
    ]
    if run.notes:
        blocks.append(["Notes", *(f"  {note}" for note in run.notes)])
    return masked("\n\n".join("\n".join(_plain(line) for line in block) for block in blocks))


def _headline(run: Run, judgement: Judgement | None) -> Iterator[str]:
    for banner in banners(run, judgement):
        yield banner.title
        yield from (f"  {line}" for line in banner.lines)
    if run.capacity is not None:
        said = ", ".join(map(_said, figures(run)))
        yield f"{about_chosen(run).capitalize()}: {said}"


def _said(one: Figure) -> str:
    named = [one.value, one.unit] if one.rate else [one.name, one.value, one.unit]
    return " ".join(word for word in named if word) + (MARK if one.void else "")


def _table(table: Table) -> Iterator[str]:
    lines = [tuple(_short(cell) for cell in line) for line in chain([table.head], table.rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    yield table.title
    for line in lines:
        cells = (
            cell.ljust(width) if index < table.left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        yield ("  " + "  ".join(cells)).rstrip()
    if table.note:
        yield f"  {table.note}"


def _short(cell: str) -> str:
    cell = masked(cell)
    return cell if len(cell) <= WIDEST else cell[: WIDEST - 1] + "…"


def _plain(line: str) -> str:
    """Without what would move the terminal's cursor or break the line."""
    return "".join(letter if letter.isprintable() else " " for letter in line)
