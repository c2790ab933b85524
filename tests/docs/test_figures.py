"""Every figure stands beside the command that gave it, and the README is one screen after another, not a paper."""

import re
from pathlib import Path

import pytest
from doc_pages import PAGES, README, ROOT, Section, sections, tables

LONGEST = 150  # lines of the README
COMMAND = re.compile(
    r"\bmedmtl (?:fit|test|predict|calibrate|ood|experiment|compare|data)\b|\bmake \w+|tests/benchmarks/\w+\.py"
)
NUMBER = re.compile(r"^\W*\d*\.?\d")
SECTIONS = [(path, section) for path in [README, *PAGES] for section in sections(path.read_text())]
MEASURED = 12  # tables of figures that there are at least


def has_figures(table: list[list[str]]) -> bool:
    """Whether more than half of a column, the first one left out, are numbers."""
    columns = [*zip(*table[1:], strict=True)][1:]
    return any(sum(bool(NUMBER.match(cell)) for cell in column) > len(column) / 2 for column in columns)


@pytest.mark.parametrize(
    ("section", "figures"),
    [
        ("| a | b |\n|---|---|\n| x | .5 |\n", True),
        ("| a | b |\n|---|---|\n| x | \u2212.017 [\u2212.039, +.006] |\n| y | 0.864 ± 0.028 |\n", True),
        ("| a | b |\n|---|---|\n| x | **0.798** |\n", True),
        ("| a | b |\n|---|---|\n| alpha | a rate; 0.05 by default |\n", False),
        ("```\n| a | 1 |\n| b | 2 |\n```\n", False),
    ],
)
def test_tables_of_figures_are_told_from_others(section: str, figures: bool) -> None:
    assert any(has_figures(table) for table in tables(section)) == figures


def test_a_table_of_figures_has_its_command_in_the_section() -> None:
    found = [(path, section) for path, section in SECTIONS if any(has_figures(table) for table in tables(section.text))]
    assert len(found) >= MEASURED
    without = [(path.name, section.title) for path, section in found if not COMMAND.search(section.text)]
    assert without == []


def test_every_row_of_what_was_found_has_a_figure_a_link_and_a_command() -> None:
    (found,) = [section for section in sections(README.read_text()) if section.title == "What was found on real data"]
    _, *rows = next(tables(found.text))
    commands = [row[2] for row in rows]
    assert COMMAND.search(commands[0])  # "the same" has one before it
    for question, figure, command in rows:
        assert re.search(r"\]\(docs/results/[\w-]+\.md", question)
        assert re.search(r"\d", figure)
        assert COMMAND.search(command) or command.startswith("the same")


def test_every_section_of_the_readme_with_a_decimal_has_a_command_or_a_page_that_has_it() -> None:
    for section in sections(README.read_text()):
        if re.search(r"(?<![\d.])\d*\.\d{2,}(?![\d.])", _prose(section)):
            assert COMMAND.search(section.text) or "](docs/results/" in section.text, section.title


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= LONGEST


def _prose(section: Section) -> str:
    return re.sub(r"\]\([^)]*\)|doi:\S+|arXiv [\d.]+", "", section.text)


def test_commands_of_benchmarks_are_files() -> None:
    for path, section in SECTIONS:
        for script in re.findall(r"tests/benchmarks/\w+\.py", section.text):
            assert (ROOT / script).is_file(), f"{script} in {Path(path).name}"
