"""Files about the project agree with the project."""

import re
from pathlib import Path

import yaml

from medmtl.version import __version__

ROOT = Path(__file__).parent.parent


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= citation.keys()
    assert citation["version"] == __version__.partition(".dev")[0]
    (paper,) = citation["references"]
    assert [each["family-names"] for each in paper["authors"]] == ["Karimi", "Gholipour"]


def test_pre_commit_runs_what_make_lint_runs() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    (recipe,) = re.findall(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    made = {line.strip().replace("$(BIN)", ".venv/bin").removesuffix(" .") for line in recipe.splitlines()}
    assert {hook["entry"] for hook in hooks} == made
    assert {hook["language"] for hook in hooks} == {"system"}
