"""Help texts, pages, configurations, documents and public names use the terms of the literature (docs/glossary.md)."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from medmtl.cli import COMMANDS, main

ROOT = Path(__file__).parent.parent
REPLACED = re.compile(
    r"foreign|familiar|recipe|stranger|doctor|hottest|coldest|\bmend(s|ed)?\b|\banew\b|\bstandings?\b|\bmoments\b|\bjudges?\b",
    re.IGNORECASE,
)
# `renamed.py` reads the names of earlier versions.
TEXTS = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/**/*.md"),
    *ROOT.glob("configs/*.yaml"),
    *ROOT.glob("medmtl/**/*.j2"),
    *ROOT.glob("notebooks/*.ipynb"),
]


@pytest.mark.parametrize("path", [path for path in TEXTS if path.name != "CHANGELOG.md"], ids=lambda path: path.name)
def test_documents_pages_and_configurations_use_the_field_s_terms(path: Path) -> None:
    assert REPLACED.findall(path.read_text()) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_help_texts_do(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert not ended.value.code
    assert REPLACED.findall(capsys.readouterr().out) == []


def test_public_names_and_their_docstrings_do() -> None:
    said = {
        f"{path.relative_to(ROOT)}: {text[:60]}"
        for path in sorted(ROOT.glob("medmtl/**/*.py"))
        if path.name != "renamed.py"
        for text in _public(ast.parse(path.read_text()))
        if REPLACED.search(text)
    }
    assert said == set()


def _public(module: ast.Module) -> Iterator[str]:
    """Docstrings, names of classes, functions, arguments and attributes."""
    for node in ast.walk(module):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            yield ast.get_docstring(node) or ""
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
