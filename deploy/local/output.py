"""What a deployment prints: the lines of every child behind its name, and the supervisor's own."""

import os
import sys
from collections.abc import Iterable
from typing import TextIO

SUPERVISOR = "deploy"
COLOURS = (36, 33, 35, 32, 34, 96, 93, 95)


class Output:
    """Writes `name | text` lines; names in colour where a person looks on."""

    def __init__(self, names: Iterable[str], stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        names = [SUPERVISOR, *names]
        self._width = max(map(len, names))
        coloured = self._stream.isatty() and not os.environ.get("NO_COLOR")
        self._colours = dict(zip(names, (1, *COLOURS * len(names)), strict=False)) if coloured else {}

    def line(self, name: str, text: str) -> None:
        """One line of a child's."""
        head = f"{name:<{self._width}} |"
        if colour := self._colours.get(name):
            head = f"\x1b[{colour}m{head}\x1b[0m"
        self._write(f"{head} {text}\n")

    def say(self, text: str) -> None:
        """One line of the supervisor's own."""
        self.line(SUPERVISOR, text)

    def plain(self, text: str) -> None:
        """Text as it is, such as the command to try."""
        self._write(text + "\n")

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            # Nobody reads on (`make serve | head`, a closed terminal): no reason to end what is served.
            self._stream = open(os.devnull, "w")  # noqa: SIM115
