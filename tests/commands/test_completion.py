"""The script of `medmtl completion` completes what a command line may hold next, in a real shell."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from medmtl.cli import COMMANDS, main
from medmtl.commands.completion import SHELLS

ASK = (
    'ask() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _shtab_medmtl; printf "%s " "${COMPREPLY[@]}"; '
    "echo; }\n"
)


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, found = tmp_path_factory.mktemp("completion"), {}
    with pytest.MonkeyPatch.context() as patch:
        for shell in SHELLS:
            found[shell] = folder / shell
            with found[shell].open("w") as stream:
                patch.setattr("sys.stdout", stream)
                main(["completion", shell])
                patch.undo()
    return found


@pytest.fixture
def completed(scripts: dict[str, Path], tmp_path: Path) -> Callable[..., list[set[str]]]:
    def ask(*lines: str) -> list[set[str]]:
        calls = "".join(f"ask {line}\n" for line in lines)
        done = subprocess.run(
            ["bash", "-c", f"source {scripts['bash']}\n{ASK}{calls}"],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
        )
        return [set(line.split()) for line in done.stdout.splitlines()]

    return ask


def test_bash_completes_commands_options_choices_files_and_configurations(
    completed: Callable[..., list[set[str]]], tmp_path: Path
) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "mine.yaml").touch()
    lines = {
        "medmtl ''": set(COMMANDS),
        "medmtl cal": {"calibrate"},
        "medmtl fit --data.bat": {"--data.batch_size", "--data.batches"},
        "medmtl fit --wandb.mode o": {"offline", "online"},
        "medmtl fit --config m": {
            *(path.name for path in (Path(__file__).parents[2] / "configs").glob("m*.yaml")),
            "mine.yaml",
        },
        "medmtl test --run r": {"runs"},
        "medmtl ood --pooled": {"--pooled-layers"},
        "medmtl data ch": {"check"},
        "medmtl data check --fix": {"--fix-affine"},
        "medmtl predict --on-ood ''": {"warn", "skip", "fail"},
    }
    for expected, found in zip(lines.values(), completed(*lines), strict=True):
        assert found == expected


def test_options_of_a_run_that_only_test_refuses_are_not_offered(completed: Callable[..., list[set[str]]]) -> None:
    assert completed("medmtl fit --res", "medmtl test --res") == [{"--resume"}, set()]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_shell_reads_the_script(shell: str, scripts: dict[str, Path]) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    subprocess.run([shell, "-n", scripts[shell]], check=True)


def test_another_shell_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["completion", "cmd"])
    assert exit_.value.code == 2
    assert "bash" in capsys.readouterr().err
