"""The report as text for the terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from triptych.loadtests.report import tables
from triptych.loadtests.report.headline import banners
from triptych.loadtests.results import Run
from triptych.loadtests.slo import Bound

# Where the output is no terminal, rich would wrap at 80 columns.
WIDTH_OF_FILE = 200


def render(run: Run, judgement: Sequence[Bound] = ()) -> str:
    """The news of a run, then its tables."""
    parts: list[Table | str] = []
    for banner in banners(run, judgement):
        parts += [banner.title, *(f"  {line}" for line in banner.lines)]
    for one in tables.every(run, brief=True):
        parts += ["", table(one.title, one.head, one.rows, one.left), *filter(None, [one.note])]
    if run.notes:
        parts += ["", "Notes", *(f"  {note}" for note in run.notes)]
    return text(*parts)


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> Table:
    """A table whose first `left` columns are words."""
    made = Table(title=_plain(title), title_justify="left", title_style="bold", box=None)
    for index, name in enumerate(head):
        made.add_column(_plain(name), justify="left" if index < left else "right", overflow="fold")
    for row in rows:
        made.add_row(*(Text(_plain(cell)) for cell in row))
    return made


def text(*parts: Table | str) -> str:
    """The parts one below the other, without a line break at the end."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH_OF_FILE)
    with console.capture() as capture:
        for part in parts:
            console.print(Text(_plain(part)) if isinstance(part, str) else part)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()).rstrip()


def _plain(words: str) -> str:
    """The words without control characters."""
    return "".join(letter if letter.isprintable() else " " for letter in words)
