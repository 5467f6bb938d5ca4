"""What the docs say that tests hold is held by tests that exist."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


def test_every_test_that_the_api_reference_names_exists() -> None:
    named = NAMED.findall((TESTS.parent / "docs" / "API.md").read_text())
    assert len(named) > 50
    for path, name in named:
        tree = ast.parse((TESTS / path).read_text())
        functions = {
            node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert name in functions, f"{path}::{name}"
