"""The command line: fast, helpful, and one line where something is wrong."""

import subprocess
import sys
from pathlib import Path

import pytest

from medmtl.cli import COMMANDS, main
from medmtl.version import __version__

HEAVY = ("torch", "monai", "pytorch_lightning", "matplotlib", "sklearn", "wandb")


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    printed = capsys.readouterr().out
    assert all(f"  {name} " in printed for name in COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    assert capsys.readouterr().out == f"medmtl {__version__}\n"


def test_the_command_line_imports_nothing_heavy() -> None:
    code = f"import sys, medmtl.cli; medmtl.cli.main(['--help']); print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "argv", [["fot"], ["fit"], ["test"], ["calibrate"], ["fit", "--run", "x", "--resume", "--overwrite"]]
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    argv: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        main(argv)
    assert exit_.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("medmtl: error: ")


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("test --ckpt-path a_b.ckpt --trainer.max_steps=1", "test --ckpt_path a_b.ckpt --trainer.max_steps=1"),
        ("fit --seed-everything=1 --ckpt_path=c-d", "fit --seed_everything=1 --ckpt_path=c-d"),
        ("predict --ckpt_path a_b --on_ood=fail", "predict --ckpt-path a_b --on-ood=fail"),
        ("ood --ckpt_path a --pooled-layers=a-b", "ood --ckpt-path a --pooled_layers=a-b"),
        ("experiment --dry_run --pretrain-on a", "experiment --dry-run --pretrain_on a"),
        ("data check a_b --fix_affine", "data check a_b --fix-affine"),
    ],
)
def test_options_are_spelled_with_hyphens_or_underscores(
    given: str, read: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed: list[str] = []
    command = given.split()[0]
    monkeypatch.setitem(COMMANDS, command, (passed.extend, ""))
    main(given.split())
    assert passed == read.split()


def test_a_run_that_does_not_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        main(["test", "--run", "runs/none"])
    assert exit_.value.code == 1
    assert "runs/none holds no checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["fit", "test", "calibrate"])
def test_help_of_a_command_explains_its_options(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    sections = ("data", "spectral", "calibration", "scaling", "wandb")
    for asked in ("--help", *(f"--help.{section}" for section in sections)):
        with pytest.raises(SystemExit) as exit_:
            main([command, asked])
        assert exit_.value.code == 0
    printed = " ".join(capsys.readouterr().out.split())
    options = ("--run", "--data.balance", "--spectral.alpha", "--calibration.bins", "--scaling.method", "--wandb.mode")
    for text in (*options, "exponent a"):
        assert text in printed
    assert ("--resume" in printed) == (command == "fit")


def test_phantoms_are_written_anywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["data", "phantom", str(tmp_path / "out"), "--cases", "1", "--seed", "3"])
    assert str(tmp_path / "out") in capsys.readouterr().out
    assert len(list((tmp_path / "out").glob("*/dataset.json"))) == 6
