"""What the README tells people to do exists."""

import itertools
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from medmtl.cli import COMMANDS
from medmtl.data.task import Task
from medmtl.training.request import find_config

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)
LINES = [line.split("#")[0].strip() for kind, block in BLOCKS if kind in ("", "bash") for line in block.splitlines()]


def test_every_command_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    commands = [
        words for line in LINES for words in [re.sub(r"^MEDMTL_DATA=\S+ ", "", line).split()] if "medmtl" in words[:1]
    ]
    assert len(commands) >= 5
    for words in commands:
        assert words[1] in COMMANDS
        for name, value in itertools.pairwise(words):
            if name == "--config":
                find_config(value)


def test_every_make_target_is_one() -> None:
    targets = {line.split()[1] for line in LINES if line.startswith("make ")}
    assert "install" in targets
    targets |= set(re.findall(r"`make (\w+)`", README))
    assert {"demo", "test", "bench"} <= targets
    for target in targets:
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)


def test_commands_are_called_after_the_environment_is_made_and_activated() -> None:
    first = next(number for number, line in enumerate(LINES) if re.match(r"medmtl\b", line))
    assert LINES.index("make install") < LINES.index("source .venv/bin/activate") < first


def test_flags_have_hyphens() -> None:
    assert re.findall(r"--[a-z]+(?:-[a-z]+)+\b", README)
    assert not re.findall(r"(?<![\w-])--[a-z-]+_\w+", README)


def test_the_block_of_a_new_task_is_a_task() -> None:
    blocks = [yaml.safe_load(block) for kind, block in BLOCKS if kind == "yaml"]
    tasks = [task for block in blocks for name, task in block.items() if name != "loss"]
    assert tasks
    for task in tasks:
        Task(**task)
