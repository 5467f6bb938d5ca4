"""Imports go one way between packages, lazy imports included."""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOUSE = ("router", "workers", "deploy", "loadtests", "tests")

# Which packages of the house each may import besides itself. The router has rules of its own, below.
ALLOWED = {
    "router": {"workers"},
    "workers": set(),
    "deploy": {"router", "workers"},
    "loadtests": {"router", "workers", "deploy"},
    "tests": {"router", "workers", "deploy", "loadtests"},
}
SHARED = "workers.shared"
ENGINES = ("torch", "vllm", "ray", "transformers")


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


def modules(folder: str) -> list[Path]:
    return sorted(path for path in (ROOT / folder).rglob("*.py") if "__pycache__" not in path.parts)


@cache
def imports_of(path: Path) -> set[str]:
    package = ".".join(path.relative_to(ROOT).parent.parts)
    return {own(name) for name in imported(path.read_text(), package)}


def inside(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def circle(imports: dict[str, set[str]]) -> list[str]:
    """One circle among `imports` (module to modules), or [] if there is none."""
    done: set[str] = set()
    trail: list[str] = []

    def visit(module: str) -> list[str]:
        if module in trail:
            return [*trail[trail.index(module) :], module]
        if module in done:
            return []
        trail.append(module)
        for other in sorted(imports[module]):
            if found := visit(other):
                return found
        trail.pop()
        done.add(module)
        return []

    return next((found for module in sorted(imports) if (found := visit(module))), [])


def test_there_is_something_to_look_at() -> None:
    for folder in ("router", "workers", "deploy", "tests"):
        assert modules(folder), folder


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
    assert circle(imports) == []


def test_circle_of_imports_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize("folder", HOUSE)
def test_imports_go_one_way(folder: str) -> None:
    forbidden = set(HOUSE) - ALLOWED[folder] - {folder}
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(folder)
        for name in imports_of(path)
        if name.split(".")[0] in forbidden
    }
    assert wrong == set()


def test_packages_do_not_import_the_command_line() -> None:
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for folder in HOUSE
        if folder != "tests"
        for path in modules(folder)
        for name in imports_of(path)
        if inside(name, "command_line") or inside(name, "__main__")
    }
    assert wrong == set()


def test_router_imports_only_shared_of_workers() -> None:
    wrong = {
        f"{path.name} imports {name}"
        for path in modules("router")
        for name in imports_of(path)
        if inside(name, "workers") and not inside(name, SHARED)
    }
    assert wrong == set()


def test_shared_imports_no_other_package() -> None:
    wrong = {
        f"{path.name} imports {name}"
        for path in [*modules("workers/shared"), ROOT / "workers" / "__init__.py"]
        for name in imports_of(path)
        if name.split(".")[0] in (*ENGINES, *HOUSE) and not inside(name, SHARED)
    }
    assert wrong == set()


def test_router_imports_no_engine() -> None:
    wrong = {
        f"{path.name} imports {name}"
        for path in modules("router")
        for name in imports_of(path)
        if name.split(".")[0] in ENGINES
    }
    assert wrong == set()


def test_running_router_loads_no_other_package() -> None:
    program = (
        "import sys; before = set(sys.modules); import triptych.router.api.app, triptych.router.__main__\n"
        f"bad = {(*ENGINES, 'workers', 'deploy', 'loadtests', 'tests')!r}\n"
        "names = {n.removeprefix('triptych.') for n in set(sys.modules) - before}\n"
        f"late = {{n for n in names if n.split('.')[0] in bad}}\n"
        f"print(*sorted(late | before & {set(ENGINES)!r}))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert {name for name in found.stdout.split() if not inside(name, SHARED)} <= {"workers"}


def test_only_load_processes_import_locust() -> None:
    """locust patches sockets, threads and clocks of the whole process as soon as it is imported."""
    # Each of its tests has a process of its own.
    apart = ("test_generator",)
    safe = ("__main__", "commands", "one_run", "report.html")
    program = f"import sys, {', '.join(f'triptych.loadtests.{name}' for name in safe)}\n"
    program += "".join(f"import tests.unit.loadtests.{name}\n" for name in apart)
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
    processes = ("exchange", "generator", "join", "locustfile")
    assert named == {
        *(f"loadtests/{name}.py" for name in processes),
        *(f"tests/unit/loadtests/{name}.py" for name in apart),
    }


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
