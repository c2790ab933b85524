"""Links of the documents lead somewhere, and every page and picture can be reached."""

import re
from pathlib import Path

import pytest
import yaml
from doc_pages import DOCS, FENCE, PAGES, README, ROOT, anchors
from generated import PAGES as GENERATED

DOCUMENTS = [README, ROOT / "CONTRIBUTING.md", *PAGES]
LINK = re.compile(r"\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"")


def links(path: Path) -> list[str]:
    """Where a document's links and pictures lead, other sites left out."""
    found = [first or second for first, second in LINK.findall(FENCE.sub("", path.read_text()))]
    return [link for link in found if not re.match(r"\w+:", link)]


def nav_pages(entry: object) -> list[str]:
    """The pages of a part of the navigation."""
    if isinstance(entry, str):
        return [entry]
    parts = entry.values() if isinstance(entry, dict) else entry
    return [page for part in parts for page in nav_pages(part)]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_link_leads_to_a_file_and_a_heading_in_it(path: Path) -> None:
    for link in links(path):
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        made = target.is_relative_to(DOCS) and target.relative_to(DOCS).as_posix() in GENERATED
        assert made or target.exists(), link
        if anchor and not made:
            assert anchor in anchors(target.read_text()), link


def test_a_page_leads_to_no_file_outside_the_site() -> None:
    for path in PAGES:
        for link in links(path):
            assert (path.parent / link.partition("#")[0]).resolve().is_relative_to(DOCS), f"{link} in {path.name}"


def test_every_page_is_in_the_navigation_once() -> None:
    listed = nav_pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert sorted(listed) == sorted([*(path.relative_to(DOCS).as_posix() for path in PAGES), *GENERATED])


def test_every_picture_is_shown() -> None:
    shown = {(path.parent / link).resolve() for path in DOCUMENTS for link in links(path)}
    assert set(DOCS.rglob("*.png")) <= shown


def test_the_readme_leads_to_every_part_of_the_documentation() -> None:
    parts = {path.parent.name for path in PAGES if path.parent != DOCS}
    assert parts <= {Path(link).parts[1] for link in links(README) if link.startswith("docs/")}
