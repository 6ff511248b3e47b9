"""Every link leads somewhere, and every page can be found."""

import re
from pathlib import Path

import pytest

from .pages import ALL_PAGES, DOCS, HOUSE, page, page_names

PAGES = sorted(DOCS.rglob("*.md"))
NAV = re.findall(r"[\w/-]+\.md", (HOUSE / "mkdocs.yml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", ALL_PAGES, ids=page_names)
def test_every_link_leads_to_what_is_there(path: Path) -> None:
    assert not [problem for link in page(path).links if (problem := wrong_with(link, path))]


def wrong_with(link: str, path: Path) -> str | None:
    """What is wrong with a link, or None."""
    if link.startswith("https://"):
        return None
    if re.match(r"[a-z]+:|/", link):
        return f"{link}: neither relative nor https"
    file, _, anchor = link.partition("#")
    target = (path.parent / file).resolve() if file else path
    if not target.is_file():
        return f"{link}: there is no such file"
    if path.is_relative_to(DOCS) and not target.is_relative_to(DOCS):
        return f"{link}: leads out of docs/, where the site does not go"
    if path.is_relative_to(HOUSE / "plugins"):
        return f"{link}: a plugin's README is read where the rest of the repository is not"
    if anchor and anchor not in page(target).anchors:
        return f"{link}: there is no such heading"
    return None


def test_every_page_stands_in_the_navigation_once() -> None:
    assert sorted(NAV) == [str(path.relative_to(DOCS)) for path in PAGES]


def test_every_page_is_linked_from_the_index() -> None:
    linked = {(DOCS / link.partition("#")[0]).resolve() for link in page(DOCS / "index.md").links}
    assert not {path for path in PAGES if path.name != "index.md"} - linked


@pytest.mark.parametrize("path", PAGES, ids=page_names)
def test_a_page_has_one_title_which_comes_first(path: Path) -> None:
    headings = [token.tag for token in page(path).tokens if token.type == "heading_open"]
    assert page(path).text.startswith("# ")
    assert headings.count("h1") == 1
