"""A run as one page that needs nothing else: for a screen, a telephone, or paper; light and dark."""

from collections.abc import Iterable, Sequence
from functools import cache
from html import escape
from importlib import resources

from loadtests.report import plots, tables
from loadtests.report.headline import Banner, Figure, about_chosen, banners, figures, p99_limit
from loadtests.report.moments import Point, points
from loadtests.report.plots import Chart, Key
from loadtests.report.svg import Drawer
from loadtests.report.tables import Spent, Table
from loadtests.report.words import duration, masked
from loadtests.results import Run
from loadtests.slo import Judgement

# Longer tables are folded.
MOST_ROWS = 24
# The parts of the time, in the order in which they pass, each with its colour.
PARTS = {
    "waiting to be sent": "s8",
    "network and client": "s4",
    "server and network": "accent",
    "router": "s3",
    "queue": "s2",
    "inference": "accent",
}


def render(run: Run, judgement: Judgement | None) -> str:
    """The page. Whatever the run holds is text in it, never markup."""
    drawer = Drawer()
    loads = points(run)
    title = f"{run.name}: load test of {', '.join(run.target.values())}"
    sections = [
        _top(run, title),
        *(_banner(banner) for banner in banners(run, judgement)),
        _figures(figures(run), about_chosen(run)),
        _section("By load", _charts(plots.by_load(drawer, run, loads, p99_limit(run, judgement)))),
        _section("Over time", _charts(plots.over_time(drawer, run)), _TIME),
        _section("The server meanwhile", _charts(plots.of_server(drawer, run)), _TIME_SERVER),
        _section("By flow", _charts(plots.by_flow(drawer, run, loads))),
        _section("Where the time goes", _bars(_spent(run, loads)), _SPENT),
        *(
            _table(table)
            for table in (
                tables.loads(run),
                tables.probes(run),
                tables.failures(run),
                tables.clocks(run),
                tables.idle(run),
                tables.harness(run),
            )
            if table is not None
        ),
        _notes(run.notes),
        _setup(tables.setup(run)),
    ]
    body = "\n".join(section for section in sections if section)
    return _PAGE.format(title=_text(title), style=_style(), body=body)


_TIME = "Upright lines: where a segment begins. Shaded: while it settles, which is not measured."
_TIME_SERVER = "What its metrics say, on the same axis of time."
_SPENT = "By part, of the mean of good replies, which stands at the right."
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


@cache
def _style() -> str:
    return (resources.files(__package__) / "style.css").read_text()


def _text(text: str) -> str:
    return escape(masked(text))


def _top(run: Run, title: str) -> str:
    about = f"{run.shape}, {run.loop} loop. {run.began}."
    return f"<header><h1>{_text(title)}</h1><p>{_text(about)}</p></header>"


def _banner(banner: Banner) -> str:
    lines = "".join(f"<li>{_text(line)}</li>" for line in banner.lines)
    role = ' role="alert"' if banner.tone == "bad" else ""
    listed = f"<ul>{lines}</ul>" if lines else ""
    return f'<div class="banner {banner.tone}"{role}><p>{_text(banner.title)}</p>{listed}</div>'


def _figures(shown: Iterable[Figure], about: str) -> str:
    tiles = "".join(
        f"<div{' class=void' if one.void else ''}><dt>{_text(one.name)}</dt>"
        f"<dd>{_text(one.value)}{'†' if one.void else ''} <small>{_text(one.unit)}</small></dd></div>"
        for one in shown
    )
    return f'<dl class="figures">{tiles}</dl><p class="about">{_text(about.capitalize())}.</p>'


def _section(title: str, content: str, note: str = "") -> str:
    if not content:
        return ""
    said = f'<p class="note">{_text(note)}</p>' if note else ""
    return f"<section><h2>{_text(title)}</h2>{said}{content}</section>"


def _charts(charts: Sequence[Chart]) -> str:
    drawn = "".join(
        f"<figure><figcaption><b>{_text(chart.title)}</b> <small>{_text(chart.unit)}</small>"
        f"{_keys(chart.keys)}</figcaption>{chart.svg}"
        f"{f'<p>{_text(chart.note)}</p>' if chart.note else ''}</figure>"
        for chart in charts
    )
    return f'<div class="charts">{drawn}</div>' if drawn else ""


def _keys(keys: Iterable[Key]) -> str:
    entries = "".join(
        f'<span><i class="{key.style}" style="--c:var(--{key.colour})"></i>{_text(key.label)}</span>'
        for key in keys
    )
    return f'<span class="keys">{entries}</span>' if entries else ""


def _spent(run: Run, loads: Sequence[Point]) -> list[Spent]:
    if len(loads) >= plots.LEAST_POINTS:
        return tables.spent((point.label, point.measured) for point in loads)
    return tables.spent((measured.segment.name, [measured]) for measured in run.segments)


def _bars(rows: Sequence[Spent]) -> str:
    if not rows:
        return ""
    named = {share.name for row in rows for share in row.shares}
    keys = _keys(Key(colour, name, "band") for name, colour in PARTS.items() if name in named)
    return keys + '<div class="bars">' + "".join(map(_bar, rows)) + "</div>"


def _bar(row: Spent) -> str:
    parts = sorted(row.shares, key=lambda share: list(PARTS).index(share.name))
    total = sum(share.seconds for share in parts)
    drawn = "".join(
        f'<i style="width:{100 * share.seconds / total:.2f}%;background:var(--{PARTS[share.name]})" '
        f'title="{share.name} {duration(share.seconds)}"></i>'
        for share in parts
    )
    said = ", ".join(f"{share.name} {duration(share.seconds)}" for share in parts)
    return (
        f'<div class="bar" role="img" aria-label="{_text(row.label)}: {said}">'
        f"<b>{_text(row.label)}</b><span>{drawn}</span><small>{duration(total)}</small></div>"
    )


def _table(table: Table) -> str:
    head = "".join(f"<th{_align(index, table)}>{_text(name)}</th>" for index, name in enumerate(table.head))
    rows = "".join(
        "<tr>"
        + "".join(f"<td{_align(index, table)}>{_text(cell)}</td>" for index, cell in enumerate(row))
        + "</tr>"
        for row in table.rows
    )
    scroll = f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    if len(table.rows) > MOST_ROWS:
        scroll = f"<details><summary>{len(table.rows)} rows</summary>{scroll}</details>"
    return _section(table.title, scroll, table.note)


def _align(index: int, table: Table) -> str:
    return ' class="word"' if index < table.left else ""


def _notes(notes: Sequence[str]) -> str:
    listed = "".join(f"<li>{_text(note)}</li>" for note in notes)
    return _section("Notes", f"<ul>{listed}</ul>") if listed else ""


def _setup(table: Table) -> str:
    rows = "".join(f"<dt>{_text(name)}</dt><dd>{_text(text)}</dd>" for name, text in table.rows)
    return _section(table.title, f'<dl class="setup">{rows}</dl>')
