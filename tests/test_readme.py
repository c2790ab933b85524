"""What the README and the pages of docs tell people to do exists."""

import itertools
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from doc_pages import PAGES

from medmtl.cli import COMMANDS
from medmtl.data.task import Task
from medmtl.training.config_files import find_config

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
# Pages whose commands need no file of the reader's own; the others have tests of their own.
GUIDES = [path.read_text() for path in PAGES if path.parent.name not in ("extending", "tutorials")]


def blocks_of(text: str) -> list[tuple[str, str]]:
    """The blocks of code of a document, each with its language."""
    return re.findall(r"```(\w*)\n(.*?)```", text, flags=re.DOTALL)


def lines_of(text: str) -> list[str]:
    """The command lines of a document."""
    blocks = [block for kind, block in blocks_of(text) if kind in ("", "bash")]
    return [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]


LINES = lines_of(README)


@pytest.mark.parametrize(("texts", "least"), [([README], 5), (GUIDES, 20)], ids=["README", "docs"])
def test_every_command_is_one(texts: list[str], least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = 0
    for text in texts:
        copied = set()
        for line in lines_of(text):
            words = re.sub(r"^MEDMTL_DATA=\S+ ", "", line).removeprefix(".venv/bin/").split()
            if words[:1] == ["cp"]:
                assert (ROOT / words[1]).is_file()
                copied.add(Path(words[2]).name)  # into a folder where it is found by its name
            if words[:1] != ["medmtl"]:
                continue
            found += 1
            assert words[1] in COMMANDS
            for name, value in itertools.pairwise(words):
                if name == "--config" and value not in copied:
                    find_config(value)
    assert found >= least


def test_every_make_target_is_one() -> None:
    targets = {line.split()[1] for line in LINES if line.startswith("make ")}
    assert "install" in targets
    for text in (README, *GUIDES):
        targets |= set(re.findall(r"`make (\w+)`", text))
    assert {"demo", "test", "bench", "docs"} <= targets
    for target in targets:
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)


def test_commands_are_called_after_the_environment_is_made_and_activated() -> None:
    first = next(number for number, line in enumerate(LINES) if re.match(r"medmtl\b", line))
    assert LINES.index("make install") < LINES.index("source .venv/bin/activate") < first


def test_flags_have_hyphens() -> None:
    texts = [README, *GUIDES]
    assert any(re.findall(r"--[a-z]+(?:-[a-z]+)+\b", text) for text in texts)
    assert not [flag for text in texts for flag in re.findall(r"(?<![\w-])--[a-z-]+_\w+", text)]


def test_the_block_of_a_new_task_is_a_task() -> None:
    texts = [README, *GUIDES]
    blocks = [yaml.safe_load(block) for text in texts for kind, block in blocks_of(text) if kind == "yaml"]
    tasks = [task for block in blocks for name, task in block.items() if name != "loss"]
    assert len(tasks) >= 3
    for task in tasks:
        Task(**task)
