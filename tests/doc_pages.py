"""The pages of the documentation, for its tests: their text, headings, sections and tables."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = sorted(DOCS.rglob("*.md"))
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)


class Section(NamedTuple):
    """What stands below one heading, up to the next."""

    title: str
    text: str


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as MkDocs and GitHub make them."""
    titles = HEADING.findall(FENCE.sub("", text))
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}


def sections(text: str) -> Iterator[Section]:
    """The sections of a page."""
    blanked = FENCE.sub(lambda block: re.sub(r"(?m)^#", " ", block[0]), text)  # of the same length, without headings
    found = [*HEADING.finditer(blanked)]
    for here, after in zip(found, [*found[1:], None], strict=True):
        yield Section(here[1], text[here.end() : after.start() if after else None])


def tables(text: str) -> Iterator[list[list[str]]]:
    """The tables of a text outside code, as rows of cells; the first row is the head."""
    for lines in re.findall(r"(?:^\|.*\|$\n?)+", FENCE.sub("", text), flags=re.MULTILINE):
        rows = [re.split(r"(?<!\\)\|", line.strip())[1:-1] for line in lines.splitlines()]
        yield [[cell.strip() for cell in row] for row in rows if not set("".join(row)) <= set("-: ")]
