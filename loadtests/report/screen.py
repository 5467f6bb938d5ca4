"""Tables and lines as text for the terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from loadtests.report.words import masked

# Where the output is no terminal, rich would wrap at 80 columns.
WIDTH_OF_FILE = 200


def plain(text: str) -> str:
    """The text without passwords in URLs and without control characters."""
    return "".join(letter if letter.isprintable() else " " for letter in masked(text))


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> Table:
    """A table whose first `left` columns are words."""
    made = Table(title=plain(title), title_justify="left", title_style="bold", box=None)
    for index, name in enumerate(head):
        made.add_column(plain(name), justify="left" if index < left else "right", overflow="fold")
    for row in rows:
        made.add_row(*(Text(plain(cell)) for cell in row))
    return made


def text(*parts: Table | str) -> str:
    """The parts one below the other, without a line break at the end."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH_OF_FILE)
    with console.capture() as capture:
        for part in parts:
            console.print(Text(plain(part)) if isinstance(part, str) else part)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()).rstrip()
