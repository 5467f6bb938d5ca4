"""Imports go one way between packages, lazy imports included."""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOUSE = ("router", "workers", "deploy", "loadtests", "tests")

SHARED = "workers.shared"
ENGINES = ("torch", "vllm", "ray", "transformers")

# A file or folder, what it must not import, and the exceptions.
RULES: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = [
    ("router", ("workers", "deploy", "loadtests", "tests", *ENGINES), (SHARED,)),
    ("workers", ("router", "deploy", "loadtests", "tests"), ()),
    ("workers/shared", (*HOUSE, *ENGINES), (SHARED,)),
    # It runs before anything in `workers.shared`.
    ("workers/__init__.py", (*HOUSE, *ENGINES), (SHARED,)),
    ("deploy", ("loadtests", "tests"), ()),
    ("deploy/common", ("deploy.local", "deploy.ray", "ray", "yaml"), ()),
    ("deploy/local", ("deploy.ray", "ray", "yaml"), ()),
    ("deploy/ray", ("deploy.local",), ()),
    ("loadtests", ("tests",), ()),
]


def imported(source: str, package: str) -> Iterator[str]:
    """The full name of everything imported anywhere in `source`, a module of `package`."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                parts = package.split(".")[: len(package.split(".")) - level + 1] if level else []
                base = ".".join([*parts, *([module] if module else [])])
                yield from (f"{base}.{name.name}" for name in names)
            case ast.Call(func=ast.Name(id="__import__") | ast.Attribute(attr="import_module")) if (
                node.args and isinstance(node.args[0], ast.Constant)
            ):
                yield str(node.args[0].value)


def own(name: str) -> str:
    """`name` without the package that links to the folders."""
    return name.removeprefix("triptych.")


def modules(place: str) -> list[Path]:
    """All modules in a folder, or the one file."""
    if place.endswith(".py"):
        return [ROOT / place]
    found = sorted(path for path in (ROOT / place).rglob("*.py") if "__pycache__" not in path.parts)
    assert found, place
    return found


@cache
def imports_of(path: Path) -> set[str]:
    package = ".".join(path.relative_to(ROOT).parent.parts)
    return {own(name) for name in imported(path.read_text(), package)}


def inside(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_module_names_are_unique() -> None:
    # Each process has its settings, and the client its own errors.
    shared = {"__init__", "__main__", "settings", "errors"}
    names = Counter(
        path.stem
        for folder in HOUSE
        if folder != "tests"
        for path in modules(folder)
        if path.stem not in shared
    )
    assert [name for name, number in names.items() if number > 1] == []


def test_no_import_circles() -> None:
    paths = [path for folder in HOUSE for path in modules(folder)]
    known = {module_name(path) for path in paths}
    imports = {
        module_name(path): {
            target
            for name in imports_of(path)
            if (target := name if name in known else name.rpartition(".")[0]) in known
            and not inside(module_name(path), target)
        }
        for path in paths
    }
    # Raises `CycleError`, which names a circle.
    TopologicalSorter(imports).prepare()


def importing(paths: Iterable[Path], forbidden: tuple[str, ...], but: tuple[str, ...] = ()) -> set[str]:
    """Which of `paths` import something forbidden, in words."""
    return {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in paths
        for name in imports_of(path)
        if any(inside(name, one) for one in forbidden) and not any(inside(name, one) for one in but)
    }


@pytest.mark.parametrize(("place", "forbidden", "but"), RULES, ids=[place for place, *_ in RULES])
def test_imports_go_one_way(place: str, forbidden: tuple[str, ...], but: tuple[str, ...]) -> None:
    assert importing(modules(place), forbidden, but) == set()


def test_packages_do_not_import_the_command_line() -> None:
    paths = [path for folder in HOUSE if folder != "tests" for path in modules(folder)]
    assert importing(paths, ("command_line", "__main__")) == set()


def test_router_does_not_import_its_client() -> None:
    server = [path for path in modules("router") if not path.is_relative_to(ROOT / "router" / "client")]
    assert importing(server, ("router.client",)) == set()


@pytest.mark.parametrize(
    ("module", "without"),
    [
        ("deploy.local.cli", ("yaml", "ray")),
        ("router.__main__", (*ENGINES, "opentelemetry")),
        ("workers.checkpoints.merge", ENGINES),
        # A process that sends load needs no statistics.
        ("loadtests.commands", ("scipy", "matplotlib")),
        (
            "router.client",
            ("pydantic", "aiohttp", "pyarrow", "tqdm", "triptych.router.api", "triptych.workers"),
        ),
    ],
)
def test_module_runs_without(module: str, without: tuple[str, ...]) -> None:
    program = f"import sys; sys.modules |= dict.fromkeys({without!r})\nimport triptych.{module}"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_only_the_locustfile_imports_locust() -> None:
    """locust patches sockets, threads and clocks of the whole process as soon as it is imported."""
    safe = ("__main__", "commands", "join", "one_run", "report.html")
    program = f"import sys, {', '.join(f'triptych.loadtests.{name}' for name in safe)}\n"
    program += "print(*{'locust', 'gevent'} & set(sys.modules))"
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert found.stdout.split() == []
    named = {
        path.relative_to(ROOT).as_posix()
        for folder in HOUSE
        for path in modules(folder)
        if any(name.split(".")[0] in ("locust", "gevent", "geventhttpclient") for name in imports_of(path))
    }
    assert named == {"loadtests/locustfile.py"}


@pytest.mark.parametrize(
    ("source", "package", "names"),
    [
        ("import deploy.local", "router", {"deploy.local"}),
        ("from deploy import local as l", "router", {"deploy.local"}),
        ("def f():\n    import torch", "router", {"torch"}),
        ("if TYPE_CHECKING:\n    from vllm.x import y", "router", {"vllm.x.y"}),
        ("from . import pool", "router", {"router.pool"}),
        ("from ..deploy import x", "house.router", {"house.deploy.x"}),
        ("import importlib\nimportlib.import_module('ray')", "router", {"importlib", "ray"}),
        ("__import__('ray.serve')", "router", {"ray.serve"}),
    ],
)
def test_every_way_of_importing_is_seen(source: str, package: str, names: set[str]) -> None:
    assert set(imported(source, package)) == names
