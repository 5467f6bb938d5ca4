"""Links, anchors, paths and settings in the documents exist."""

import re
from pathlib import Path

import pytest

from triptych.deploy.env_example import CLASSES

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.md")])
DOCKERFILE = ROOT / "deploy" / "docker" / "Dockerfile"
FILES = [path for path in ROOT.glob("deploy/*/**/*") if path.suffix in (".yaml", ".yml", ".env", ".service")]
SETTING = re.compile(r"\b(?:DEPLOY|ROUTER|WORKER)_[A-Z_]*[A-Z]\b")
LINK = re.compile(r"\]\((?!http)([^)#\s]*)#?([^)\s]*)\)")
PATH = re.compile(r"`((?:router|workers|deploy|loadtests|tests|docs)/[a-z0-9_/.-]+)`")


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_paths_exist(page: Path) -> None:
    for name, anchor in LINK.findall(page.read_text()):
        target = page.parent / name if name else page
        assert target.exists(), name
        assert not anchor or anchor in anchors(target), f"{name}#{anchor}"
    missing = [path for path in PATH.findall(page.read_text()) if not (ROOT / path).exists()]
    assert missing == []


@pytest.mark.parametrize("path", [*PAGES, *FILES, DOCKERFILE], ids=lambda path: path.name)
def test_settings_exist(path: Path) -> None:
    known = {
        f"{settings.model_config['env_prefix']}{name.upper()}"
        for settings in CLASSES
        for name in settings.model_fields
    }
    assert set(SETTING.findall(path.read_text())) <= known
