"""What the pages name exists."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    page for page in ROOT.rglob("*.md") if not any(part.startswith(".") for part in page.relative_to(ROOT).parts)
)
FOLDERS = r"(?:daemon|models|producers|tests|benchmarks|deploy|docs)"


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    """Each relative link is a file or a folder here."""
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_page_is_found_from_the_readme() -> None:
    """By following links, from page to page."""
    found, coming = set(), [ROOT / "README.md"]
    while coming:
        page = coming.pop()
        if page not in found and page.suffix == ".md" and page.exists():
            found.add(page)
            links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
            coming.extend((page.parent / link).resolve() for link in links)
    assert [str(page.relative_to(ROOT)) for page in PAGES if page not in found] == []


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_the_files_a_page_names_exist(page: Path) -> None:
    """`daemon/batch.py` in a page is a file of this checkout."""
    named = re.findall(rf"`({FOLDERS}/[\w./-]*\w)/?`", page.read_text())

    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_architecture_page_says_the_rules_that_are_enforced() -> None:
    """Each sentence that is the name of an import contract is on the page, in its words."""
    page = " ".join((ROOT / "docs" / "architecture.md").read_text().split())
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]:
        assert contract["name"] in page


def test_every_alert_is_explained() -> None:
    """The table in deploy/README.md has a row for each alert, and none for another."""
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    explained = re.findall(r"^\| `(\w+)` \|", (ROOT / "deploy" / "README.md").read_text(), re.M)
    assert sorted(explained) == sorted(alerts)
