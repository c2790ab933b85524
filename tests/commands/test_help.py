"""The help of a command is short, quick and taken from the signatures; every key is behind one of its sections."""

import inspect
import json
import re
import shlex
import subprocess
import sys

import pytest
from pytorch_lightning import Trainer

from medmtl.cli import COMMANDS, main
from medmtl.commands.help import EXAMPLES, FIRST, help_of
from medmtl.commands.keys import LINKS, keys_of, sections
from medmtl.runs.wandb import Wandb
from medmtl.training.lightning_cli import TRAINER_DEFAULTS
from medmtl.training.request import SECTIONS

HEAVY = ("torch", "monai", "pytorch_lightning", "jsonargparse", "matplotlib", "numpy", "wandb", "rich")
MOST_SECONDS = 0.5  # of computing, however busy the machine is


def printed(command: str, option: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as exit_:
        main([command, option])
    assert exit_.value.code in (0, None)
    return capsys.readouterr().out


def test_every_help_together_takes_less_than_half_a_second_and_imports_nothing_heavy() -> None:
    code = (
        "import json, sys, time\n"
        "from medmtl.cli import COMMANDS, main\n"
        "for command in [*COMMANDS, 'data check']:\n"
        "    try: main([*command.split(), '--help'])\n"
        "    except SystemExit: pass\n"
        f"print(json.dumps([time.process_time(), [name for name in {HEAVY} if name in sys.modules]]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, heavy = json.loads(done.stdout.splitlines()[-1])
    assert heavy == []
    assert seconds < MOST_SECONDS


@pytest.mark.parametrize("command", FIRST)
def test_a_help_has_some_twenty_options_and_its_examples_at_the_end(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    text = printed(command, "--help", capsys)
    assert len(re.findall(r"^  -", text, flags=re.MULTILINE)) <= 25
    assert len(text.splitlines()) < 100
    tail = text.partition("examples:\n")[2]
    assert tail.startswith(f"  medmtl {command} ")
    assert all(f"--help.{section}" in tail for section in sections(command))
    assert set(FIRST[command]) <= set(keys_of(command))


def test_every_argument_is_behind_the_help_of_its_section(capsys: pytest.CaptureFixture[str]) -> None:
    linked = {target for _, target in LINKS}
    for section, owner in {**SECTIONS, "wandb": Wandb, "trainer": Trainer}.items():
        text = printed("fit", f"--help.{section}", capsys)
        for name, parameter in inspect.signature(owner).parameters.items():
            shown = re.search(rf"^  --{section}\.{name} ", text, flags=re.MULTILINE) is not None
            variable = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
            assert shown != (variable or f"{section}.{name}" in linked), name


def test_defaults_are_those_that_a_run_gets(capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(printed("fit", "--help.data", capsys).split())
    assert "patches in a batch of each process (default: 4)" in text
    trainer = " ".join(printed("fit", "--help.trainer", capsys).split())
    assert f"How often to log within steps (default: {TRAINER_DEFAULTS['log_every_n_steps']})" in trainer


def test_a_section_that_does_not_exist_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["fit", "--help.modle"])
    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "'modle'" in line
    assert "model" in line.rpartition(":")[2]


@pytest.mark.parametrize("command", EXAMPLES)
def test_examples_use_options_that_exist(command: str) -> None:
    known = {f"--{name}" for name in keys_of(command)} | {"--print-config"}
    known |= set(re.findall(r"--[\w-]+", help_of(command)))
    for example in EXAMPLES[command]:
        words = shlex.split(example)
        assert words[:2] == ["medmtl", command]
        assert command in COMMANDS
        assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.parametrize("command", ["ood", "experiment"])
def test_a_command_without_sections_describes_all_its_options(command: str) -> None:
    text = help_of(command)
    for name in keys_of(command):
        assert (f"--{name.replace('_', '-')} " in text) == (".NAME" not in name), name
