"""The table of faults in the documentation names tests that there are."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROWS = [
    line for line in (ROOT / "docs/explanation/faults.md").read_text(encoding="utf-8").splitlines() if line[:2] == "| "
][1:]


def _tests_in(path: Path) -> set[str]:
    return {node.name for node in ast.parse(path.read_bytes()).body if isinstance(node, ast.FunctionDef)}


def test_every_row_of_the_table_is_a_test() -> None:
    assert len(ROWS) >= 20
    for row in ROWS:
        _, fault, happens, shown, _ = row.split("|")
        assert fault.strip()
        assert happens.strip()
        named = re.findall(r"`(tests/\S+\.py)::(test_\w+)`", shown)
        assert named
        assert shown.count("`") == 2 * len(named), row
        for file, test in named:
            assert test in _tests_in(ROOT / file), f"{file}::{test}"
