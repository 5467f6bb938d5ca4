"""The report as text for the terminal."""

from collections.abc import Iterator

from rich.table import Table

from loadtests.report import screen, tables
from loadtests.report.headline import MARK, Figure, about_chosen, banners, figures
from loadtests.results import Run
from loadtests.slo import Judgement


def render(run: Run, judgement: Judgement | None = None) -> str:
    """The news of a run, then its tables."""
    return screen.text(*_parts(run, judgement))


def _parts(run: Run, judgement: Judgement | None) -> Iterator[Table | str]:
    for banner in banners(run, judgement):
        yield banner.title
        yield from (f"  {line}" for line in banner.lines)
    if run.capacity is not None:
        key = ", ".join(map(_words, figures(run)))
        yield f"{about_chosen(run).capitalize()}: {key}"
    for table in tables.brief(run):
        yield ""
        yield screen.table(table.title, table.head, table.rows, table.left)
        if table.note:
            yield table.note
    if run.notes:
        yield "\nNotes"
        yield from (f"  {note}" for note in run.notes)


def _words(one: Figure) -> str:
    # A rate's unit says what it counts.
    words = [one.value, one.unit] if one.unit.endswith("/s") else [one.name, one.value, one.unit]
    return " ".join(words) + (MARK if one.void else "")
