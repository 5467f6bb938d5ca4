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
        width = max(map(len, names))
        self._heads = {name: f"{name:<{width}} |" for name in names}
        if self._stream.isatty() and not os.environ.get("NO_COLOR"):
            for name, colour in zip(names, (1, *COLOURS * len(names)), strict=False):
                self._heads[name] = f"\x1b[{colour}m{self._heads[name]}\x1b[0m"

    def line(self, name: str, text: str) -> None:
        self.plain(f"{self._heads[name]} {text}")

    def say(self, text: str) -> None:
        self.line(SUPERVISOR, text)

    def plain(self, text: str) -> None:
        """Print text without a name."""
        try:
            print(text, file=self._stream, flush=True)
        except OSError:
            # The reader is gone (`make serve | head`, a closed terminal). Serving goes on.
            self._stream = open(os.devnull, "w")  # noqa: SIM115
