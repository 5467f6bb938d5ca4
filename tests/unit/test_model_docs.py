"""The tables in docs/MODELS.md against the registry."""

import re
from pathlib import Path

from triptych.router.api.aliases import OLD_MODELS
from triptych.workers.shared.families import BY_NAME, FAMILIES, Family

PAGE = (Path(__file__).parents[2] / "docs" / "MODELS.md").read_text()


def table(heading: str) -> list[list[str]]:
    """The cells of each row of the first table after a line, without its head."""
    lines = PAGE[PAGE.index(heading) :].splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def sizes(family: Family) -> list[str]:
    vectors = [str(family.dimensions), ", ".join(map(str, family.matryoshka))] if family.tasks else ["", ""]
    return [family.name, family.key, *vectors, str(family.positions)]


def test_models_are_those_of_the_registry() -> None:
    rows = table("# Models")
    assert [row[:5] for row in rows] == [sizes(family) for family in FAMILIES]
    for row, family in zip(rows, FAMILIES, strict=True):
        assert ("images" in row[5]) == family.images
        assert row[6]


def test_tasks_are_those_of_the_registry() -> None:
    documented: dict[tuple[str, str | None], tuple[str, str]] = {}
    other: dict[tuple[str, str], str] = {}
    default: dict[str, str] = {}
    model = ""
    for name, tasks, pool, prefix in table("## Tasks and pools"):
        model = name or model
        if tasks.startswith("as "):
            continue
        names = re.findall("`([^`]*)`", tasks)
        documented[model, names[0] if names else None] = (pool.partition(":")[0], prefix.strip("`"))
        other |= {(model, name): names[0] for name in names[1:]}
        if "(default)" in tasks:
            default[model] = names[0]
    for family in {BY_NAME[model] for model, _ in documented}:
        mine = {task: route for (model, task), route in documented.items() if model == family.name}
        routes = {
            task: (pool, family.prefixes[role])
            for task, (pool, role) in family.routes.items()
            if task or not family.default_task
        }
        assert mine == routes
        assert {name: task for (model, name), task in other.items() if model == family.name} == dict(
            family.other_tasks
        )
        assert default.get(family.name) == family.default_task


def test_old_names_are_those_of_the_set() -> None:
    found = {}
    for names, model, task, values, _ in table("`ROUTER_OLD_MODEL_NAMES=true`"):
        first, *endings = re.findall("`([^`]*)`", names)
        for name in (first, *(first.rpartition("-")[0] + ending for ending in endings)):
            found[name] = (model, task.strip("`"), int(values))
    assert found == {name: (alias.model, alias.task, alias.dimensions) for name, alias in OLD_MODELS.items()}
