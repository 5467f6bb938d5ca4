"""Imports go one way between packages, lazy imports included. ruff refuses relative ones."""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
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
    *((folder, ("command_line", "__main__"), ()) for folder in HOUSE if folder != "tests"),
]


def modules(*places: str) -> list[Path]:
    """All modules in folders, or single files."""
    found = [path for place in places for path in [ROOT / place, *(ROOT / place).rglob("*.py")]]
    return [path for path in found if path.is_file()]


@cache
def imports_of(path: Path) -> set[str]:
    """The full names of all imports in a module, without the package that links to the folders."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names=found):
                names |= {each.name for each in found}
            case ast.ImportFrom(module=module, names=found):
                names |= {f"{module}.{each.name}" for each in found}
    return {name.removeprefix("triptych.") for name in names}


def inside(name: str, *modules: str) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_module_names_are_unique() -> None:
    # Each process has its settings, and the client its own errors.
    shared = {"__init__", "__main__", "settings", "errors"}
    names = Counter(path.stem for path in modules("router", "workers", "deploy", "loadtests"))
    assert {name for name, number in names.items() if number > 1} <= shared


def test_no_import_circles() -> None:
    paths = modules(*HOUSE)
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
        if inside(name, *forbidden) and not inside(name, *but)
    }


@pytest.mark.parametrize(("place", "forbidden", "but"), RULES)
def test_imports_go_one_way(place: str, forbidden: tuple[str, ...], but: tuple[str, ...]) -> None:
    assert modules(place)
    assert importing(modules(place), forbidden, but) == set()


def test_router_does_not_import_its_client() -> None:
    server = set(modules("router")) - set(modules("router/client"))
    assert importing(server, ("router.client",)) == set()


def test_only_the_locustfile_imports_locust() -> None:
    """locust patches sockets, threads and clocks of the whole process as soon as it is imported."""
    importers = {
        path for path in modules(*HOUSE) if importing([path], ("locust", "gevent", "geventhttpclient"))
    }
    assert importers == {ROOT / "loadtests" / "locustfile.py"}


NO_LOCUST = ("locust", "gevent")


@pytest.mark.parametrize(
    ("module", "without"),
    [
        ("deploy.local.cli", ("yaml", "ray")),
        ("router.__main__", (*ENGINES, "opentelemetry")),
        ("workers.checkpoints.merge", ENGINES),
        ("loadtests.__main__", NO_LOCUST),
        # A process that sends load needs no statistics.
        ("loadtests.commands", (*NO_LOCUST, "scipy", "matplotlib")),
        ("loadtests.join", NO_LOCUST),
        ("loadtests.one_run", NO_LOCUST),
        ("loadtests.report.html", NO_LOCUST),
        (
            "router.client",
            ("pydantic", "aiohttp", "pyarrow", "tqdm", "triptych.router.api", "triptych.workers"),
        ),
    ],
)
def test_module_runs_without(module: str, without: tuple[str, ...]) -> None:
    program = f"import sys; sys.modules |= dict.fromkeys({without!r})\nimport triptych.{module}"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
