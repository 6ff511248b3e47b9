"""The documents as a test sees them: blocks of code, links, headings and tables.

What a block is for is said by a comment before it, which no renderer shows: ``<!-- test: run worker -->``. The words:

    run         (sh, console) run the commands; what a console block shows must come, with … for anything
    background  (sh) start it, wait until it says that it is ready, and let it run to the end of the page
    url=NAME    (of a service in the background) it gets a free PORT, and the variable NAME says where it is
    worker      a worker for `echo` is there while the block runs
    comfyui     a pretended ComfyUI server is there to the end of the page
    continues   (python) go on with the names of the python block before
    output      (text) what the block before printed
    file=NAME   write the block to this file of the page's own folder instead of running it

A python block runs without being asked for, one with `file` excepted. The blocks of a page run in their order, in one folder
and under one namespace of Redis.
"""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from attrs import frozen
from markdown_it import MarkdownIt
from markdown_it.token import Token

import emp_core

__all__ = ["ALL_PAGES", "DOCS", "HOUSE", "Block", "Page", "page", "page_names"]

HOUSE = Path(emp_core.__file__).parent.parent
DOCS = HOUSE / "docs"
ALL_PAGES = (
    HOUSE / "README.md",
    HOUSE / "CONTRIBUTING.md",
    *sorted(DOCS.rglob("*.md")),
    *sorted(HOUSE.glob("plugins/*/README.md")),
)
"""Every document that people read."""

_MARK = re.compile(r"\s*<!-- test: (?P<words>.*?) -->\s*")
_WORDS = {"run", "background", "url", "worker", "comfyui", "continues", "output", "file"}


@frozen
class Block:
    """A fenced block of code.

    Attributes:
        line: where its text begins in the page.
        marks: the words of the comment before it, each with what follows its ``=``.
    """

    page: Path
    line: int
    language: str
    text: str
    marks: dict[str, str]

    def __str__(self) -> str:
        return f"{self.page.relative_to(HOUSE)}:{self.line}"


@frozen
class Page:
    """One document."""

    path: Path
    text: str
    tokens: tuple[Token, ...]

    @property
    def name(self) -> str:
        """Its path below the house."""
        return self.path.relative_to(HOUSE).as_posix()

    @property
    def blocks(self) -> list[Block]:
        """Its blocks of code, in order."""
        found: list[Block] = []
        marks: dict[str, str] = {}
        for token in self.tokens:
            if token.type == "html_block":
                marks = _marks(token, self.name)
            elif token.type == "fence":
                line = (token.map or [0])[0] + 2
                found.append(Block(self.path, line, token.info.strip(), token.content, marks))
                marks = {}
            elif marks:
                raise AssertionError(f"{self.name}: a mark stands before something that is no block: {marks}")
        return found

    @property
    def prose(self) -> Iterator[Token]:
        """What stands in its running text: texts, code, links."""
        for token in self.tokens:
            yield from token.children or ()

    @property
    def inline_code(self) -> list[str]:
        """What stands in backticks."""
        return [token.content for token in self.prose if token.type == "code_inline"]

    @property
    def links(self) -> list[str]:
        """Where it links to."""
        kinds = {"link_open": "href", "image": "src"}
        return [str(token.attrs[kinds[token.type]]) for token in self.prose if token.type in kinds]

    @property
    def anchors(self) -> set[str]:
        """The anchors of its headings."""
        titles = [
            following.content
            for token, following in zip(self.tokens, self.tokens[1:], strict=False)
            if token.type == "heading_open"
        ]
        return {_slug(title) for title in titles}

    def section(self, heading: str) -> "Page":
        """What stands below a heading, down to the next one of the same rank."""
        for at, token in enumerate(self.tokens):
            if token.type == "heading_open" and self.tokens[at + 1].content == heading:
                rest = self.tokens[at + 3 :]
                ends = [i for i, t in enumerate(rest) if t.type == "heading_open" and t.tag <= token.tag]
                return Page(self.path, self.text, rest[: ends[0]] if ends else rest)
        raise AssertionError(f"{self.name} has no heading {heading!r}")

    @property
    def rows(self) -> list[list[str]]:
        """The rows of all its tables, without the heads; cells as they are written."""
        found: list[list[str]] = []
        in_body = False
        for token in self.tokens:
            match token.type:
                case "tbody_open" | "tbody_close":
                    in_body = token.type == "tbody_open"
                case "tr_open" if in_body:
                    found.append([])
                case "inline" if in_body:
                    found[-1].append(token.content)
        return found

    @property
    def table(self) -> dict[str, list[str]]:
        """The rows of all its tables by the first cell, without backticks; a cell that names several stands for each."""
        found: dict[str, list[str]] = {}
        for first, *rest in self.rows:
            for name in re.findall(r"`([^`]+)`", first) or [first]:
                assert name not in found, f"{self.name} has two rows for {name}"
                found[name] = rest
        return found


def _marks(token: Token, name: str) -> dict[str, str]:
    found = _MARK.fullmatch(token.content)
    if found is None:
        raise AssertionError(f"{name}: HTML is not needed in a document: {token.content!r}")
    marks = dict(word.partition("=")[::2] for word in found["words"].split())
    assert marks.keys() <= _WORDS, f"{name}: unknown mark in {token.content!r}"
    return marks


def _slug(title: str) -> str:
    """The anchor that GitHub and mkdocs make of a heading."""
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", title.lower()).strip())


@cache
def page(path: Path) -> Page:
    """Read a document."""
    text = path.read_text(encoding="utf-8")
    return Page(path, text, tuple(MarkdownIt("commonmark").enable("table").parse(text)))


def page_names(path: Path) -> str:
    """The name of a page in a test's id."""
    return path.relative_to(HOUSE).as_posix()
