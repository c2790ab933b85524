"""The command line of `medmtl predict`."""

import subprocess
import sys
from pathlib import Path

import pytest

from medmtl.cli import main
from medmtl.errors import ConfigError
from medmtl.predict.options import Options, parse

NEEDED = ["--run", "runs/multitask", "--input", "scan.nii.gz", "--output", "out"]


def test_what_is_not_given_has_the_documented_value() -> None:
    assert parse(NEEDED) == Options("runs/multitask", None, Path("scan.nii.gz"), Path("out"))


def test_every_option_arrives() -> None:
    flags = "--ckpt-path c --input i --output o --task T --modality PET --probability --entropy --report --on-ood skip"
    more = "--alpha 0.1 --device cuda --precision bf16 --window-batch 4 --volume all --overwrite"
    assert parse(f"{flags} {more}".split()) == Options(
        None, "c", Path("i"), Path("o"), "T", "PET", True, True, True, "skip", 0.1, "cuda", "bf16", 4, "all", True
    )
    assert parse([*NEEDED, "--volume", "3"]).volume == 3
    assert [parse([*NEEDED, "--suffix", text]).suffix for text in ("", "_seg")] == ["", "_seg"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (NEEDED[2:], "--run --ckpt-path"),
        ([*NEEDED, "--ckpt-path", "best.ckpt"], "--ckpt-path"),
        (NEEDED[:4], "--output"),
        ([*NEEDED[:2], *NEEDED[4:]], "--input"),
        ([*NEEDED, "--alpha", "1"], "between 0 and 1"),
        ([*NEEDED, "--alpha", "few"], "'few'"),
        ([*NEEDED, "--window-batch", "0"], "1 or more"),
        ([*NEEDED, "--volume", "-1"], "counted from 0"),
        ([*NEEDED, "--volume", "each"], "'each'"),
        ([*NEEDED, "--suffix", "/mask"], "'/mask'"),
        ([*NEEDED, "--suffix", "_entropy"], "that of another output"),
        ([*NEEDED, "--modality", "X-ray"], "X-ray"),
        ([*NEEDED, "--on-ood", "stop"], "stop"),
        ([*NEEDED, "--prob"], "--prob"),
    ],
)
def test_wrong_usage_is_one_line(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="--help"):
        parse(argv)
    with pytest.raises(SystemExit) as exit_:
        main(["predict", *argv])
    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_its_help_imports_nothing_heavy_and_names_the_exit_codes() -> None:
    code = "import sys; from medmtl.cli import main\ntry: main(['predict', '--help'])\nexcept SystemExit: pass\n"
    code += "print([m for m in ('torch', 'monai', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "Exit codes: 0 done, 1 error, 2 wrong usage, 3 done but" in " ".join(done.stdout.split())
