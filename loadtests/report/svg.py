"""From a matplotlib figure to an SVG that stands in a page: in its colours and letters, ids its own."""

import html
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadtests.report.words import masked

WIDTH, HEIGHT = 460.0, 190.0
"""Of every figure, in px: small, so that letters can still be read on a telephone."""
LEFT, RIGHT, TOP, BOTTOM = 58.0, 22.0, 18.0, 22.0
"""Margins in px. They are the same everywhere, so that figures one above the other share their axis."""

# Colours are the page's, light or dark: a figure is drawn in numbers that stand for their names.
NAMES = (
    "ink", "faint", "grid", "accent", "soft",
    "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8",
    "bad1", "bad2", "bad3", "bad4", "bad5",
)  # fmt: skip
COLOURS = {name: f"#fe00{number:02x}" for number, name in enumerate(NAMES)}
_NAMED = {colour: f"var(--{name})" for name, colour in COLOURS.items()}

STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.edgecolor": COLOURS["grid"],
    "axes.formatter.use_mathtext": False,
    "grid.color": COLOURS["grid"],
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.5,
    "lines.solid_joinstyle": "round",
    "text.color": COLOURS["faint"],
    "text.parse_math": False,
    "font.size": 12,
    "xtick.color": COLOURS["faint"],
    "ytick.color": COLOURS["faint"],
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    # The same run gives the same page, and letters stay letters.
    "svg.hashsalt": "triptych",
    "svg.fonttype": "none",
}
_NOTHING: Any = dict.fromkeys(("Date", "Creator", "Format", "Type"))


class Drawn(NamedTuple):
    """A figure that is being drawn; after the block `svg` holds it."""

    figure: Figure
    axes: Axes
    out: list[str]

    @property
    def svg(self) -> str:
        return self.out[0]


class Drawer:
    """Draws the figures of one page."""

    def __init__(self) -> None:
        self._numbers = count(1)

    @contextmanager
    def draw(self, label: str) -> Iterator[Drawn]:
        """Axes to draw on; `label` is read out to those who do not see the figure."""
        with matplotlib.rc_context(STYLE):
            figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72), dpi=72)
            box = (LEFT / WIDTH, BOTTOM / HEIGHT, 1 - (LEFT + RIGHT) / WIDTH, 1 - (TOP + BOTTOM) / HEIGHT)
            drawn = Drawn(figure, figure.add_axes(box), [])
            yield drawn
            file = io.StringIO()
            figure.savefig(file, format="svg", metadata=_NOTHING, transparent=True)
        drawn.out.append(_inline(file.getvalue(), f"f{next(self._numbers)}-", label))


def _inline(document: str, prefix: str, label: str) -> str:
    body = document[document.index("<svg") :]
    body = body[body.index(">") + 1 :]
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    used = set(re.findall(r'href="#([^"]+)"', body)) | set(re.findall(r"url\(#([^)]+)\)", body))
    body = re.sub(r"<[^<>]+>", lambda tag: _tag(tag[0], used, prefix), body)
    body = re.sub(r"<defs>\s*</defs>|>\s+(?=<)", lambda found: ">" if found[0][0] == ">" else "", body)
    name = html.escape(masked(label))
    return f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{name}">{body}'


def _tag(tag: str, used: set[str], prefix: str) -> str:
    """One tag; letters between tags are left as they are."""
    tag = re.sub(r"\s+", " ", tag)
    tag = re.sub(r' id="([^"]*)"', lambda found: f' id="{prefix}{found[1]}"' if found[1] in used else "", tag)
    tag = tag.replace('xlink:href="#', f'href="#{prefix}').replace("url(#", f"url(#{prefix}")
    tag = re.sub(r" ?font-family: [^;\"]*;?", "", tag)
    tag = re.sub(r' transform="rotate\(-?0 [^"]*\)"', "", tag)
    tag = re.sub(r"(\d\.\d)\d+", r"\1", tag) if " d=" in tag or " x=" in tag else tag
    return re.sub(r"#fe00[0-9a-f]{2}", lambda found: _NAMED[found[0]], tag)
