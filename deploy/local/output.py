"""Prints the lines of every child with its name, and the supervisor's own."""

import os
import sys
from collections.abc import Iterable
from typing import TextIO

SUPERVISOR = "deploy"
COLOURS = (36, 33, 35, 32, 34, 96, 93, 95)


class Output:
    """Writes `name | text` lines; names are coloured on a terminal."""

    def __init__(self, names: Iterable[str], stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        names = [SUPERVISOR, *names]
        self._width = max(map(len, names))
        coloured = self._stream.isatty() and not os.environ.get("NO_COLOR")
        self._colours = dict(zip(names, (1, *COLOURS * len(names)), strict=False)) if coloured else {}

    def line(self, name: str, text: str) -> None:
        """Print one line of a child."""
        head = f"{name:<{self._width}} |"
        if colour := self._colours.get(name):
            head = f"\x1b[{colour}m{head}\x1b[0m"
        self._write(f"{head} {text}\n")

    def say(self, text: str) -> None:
        """Print one line of the supervisor."""
        self.line(SUPERVISOR, text)

    def plain(self, text: str) -> None:
        """Print text without a name."""
        self._write(text + "\n")

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            # The reader is gone (`make serve | head`, a closed terminal). Serving goes on.
            self._stream = open(os.devnull, "w")  # noqa: SIM115
