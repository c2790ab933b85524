"""Training and testing on two processes: the figures of one, one run folder, one report, and one voice."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from medmtl.cli import main
from medmtl.errors import ConfigError
from medmtl.runs.folder import RunFolder
from medmtl.training.request import RUN_VARIABLE, parse_request

TWO = ["--trainer.strategy=ddp", "--trainer.devices=2"]
# Processes that are forked from this one start in no time; Lightning's launcher and ours have no part in them.
FORKED = ["--trainer.strategy=ddp_fork"]


def command(*argv: str) -> subprocess.CompletedProcess[str]:
    """Run `medmtl` as its users do; Lightning starts the other processes with the same command line."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "medmtl", *argv], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return done


def same_report(one: Path, other: Path) -> bool:
    names = ("report.json", "cases.csv", "bins.json")
    return all((one / "report" / name).read_bytes() == (other / "report" / name).read_bytes() for name in names)


def last_test(run: Path) -> dict[str, str]:
    with (run / "metrics.csv").open(newline="") as stream:
        row = [row for row in csv.DictReader(stream) if row.get("test/mean/dice")][-1]
    return {key: value for key, value in row.items() if key.startswith("test/")}


def files(run: Path) -> set[str]:
    return {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}


def bank(checkpoint: Path) -> dict:
    return torch.load(checkpoint, weights_only=True)["callbacks"]["SpectralCallback"]


def test_two_processes_test_a_checkpoint_as_one_does(trained: Path, workplace: Path) -> None:
    checkpoint = str(trained / "checkpoints" / "best.ckpt")
    done = command("test", "--ckpt_path", checkpoint, "--run", "two/tiny", *TWO)
    two = workplace / "two" / "tiny"
    assert same_report(two, trained)
    assert last_test(two) == last_test(trained)
    assert files(two / "report") == files(trained / "report")
    assert json.loads((two / "run.json").read_text())["test"]["processes"] == 2
    assert done.stdout.count("report:") == 1
    assert done.stderr.count("task LiverCT:") == 1
    assert "Warning" not in done.stderr


def test_an_uneven_number_of_cases_is_scored_once_each(trained: Path, workplace: Path) -> None:
    checkpoint = str(trained / "checkpoints" / "best.ckpt")
    with (trained / "report" / "cases.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) % 3
    main(["test", "--ckpt_path", checkpoint, "--run", "three/tiny", *FORKED, "--trainer.devices=3"])
    assert same_report(workplace / "three" / "tiny", trained)


def test_two_processes_train_like_one_with_a_batch_of_twice_the_size(tiny: Path, workplace: Path) -> None:
    # Without dropout, whose masks cannot be the same; and without Adam, which makes rounding large.
    config = yaml.safe_load(tiny.read_text())
    del config["model"]["network"]["init_args"]["dropout"]
    config["model"]["optimizer"] = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.01}}
    Path("plain.yaml").write_text(yaml.safe_dump(config))
    done = command("fit", "--config", "plain.yaml", "--data.batch_size=1", *TWO)
    assert [path.name for path in Path("runs").iterdir()] == ["plain"]
    assert done.stdout.count("trained:") == 1
    assert done.stderr.count("signature bank:") == 1
    assert "Warning" not in done.stderr
    main(["fit", "--config", "plain.yaml", "--data.batch_size=2", "--run", "alone"])
    run, alone = Path("runs/plain"), Path("alone")
    assert files(run) == files(alone)
    assert json.loads((run / "run.json").read_text())["fit"]["steps"] == 6
    two, one = (torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True) for folder in (run, alone))
    for name, weight in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][name], weight, rtol=1e-4, atol=1e-6)

    # Calibrating computes the bank again, here in one process from the same weights.
    best = run / "checkpoints" / "best.ckpt"
    merged, written = bank(best), best.stat().st_mtime_ns
    main(["calibrate", "--run", str(run), "--trainer.strategy=auto", "--trainer.devices=1"])
    assert best.stat().st_mtime_ns > written
    found = bank(best)
    assert merged["held_out"] == found["held_out"]
    assert all(merged["bank"][key] == found["bank"][key] for key in ("tasks", "cases"))
    assert merged["bank"]["signatures"].keys() == found["bank"]["signatures"].keys()
    for layer, rows in merged["bank"]["signatures"].items():
        assert torch.equal(found["bank"]["signatures"][layer], rows), layer


def test_batch_norm_and_fewer_validation_cases_than_processes_run_to_the_end(tiny: Path, workplace: Path) -> None:
    main(
        [
            *("fit", "--config", str(tiny), "--run", "b", *FORKED, "--trainer.devices=2"),
            *("--model.network.init_args.norm=batch", "--data.held_out=[KidneyT2]"),
        ]
    )
    splits = json.loads(Path("b/splits.json").read_text())
    assert len(splits["LiverCT"]["val"]) == 1
    facts = json.loads(Path("b/run.json").read_text())["fit"]
    assert (facts["status"], facts["steps"]) == ("finished", 6)
    assert bank("b/checkpoints/best.ckpt")["bank"]["cases"] == splits["LiverCT"]["train"]


def test_a_process_that_was_started_by_another_takes_its_folder_as_it_is(
    trained: Path, tiny: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(trained, workplace / "runs" / "tiny")
    before = files(run)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv(RUN_VARIABLE, "runs/tiny")
    assert parse_request(["fit", "--config", str(tiny)]).run.path == Path("runs/tiny")
    assert parse_request(["fit", "--config", str(tiny), "--run", "runs/tiny", "--overwrite"]).run.path.is_dir()
    assert files(run) == before
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert parse_request(["fit", "--config", str(tiny)]).run.path == Path("runs/tiny-2")


@pytest.mark.parametrize("environment", [{"RANK": "0", "WORLD_SIZE": "2"}, {"RANK": "1", "WORLD_SIZE": "2"}])
def test_processes_that_were_started_from_outside_need_to_know_their_folder(
    tiny: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="add --run FOLDER"):
        parse_request(["fit", "--config", str(tiny)])
    assert parse_request(["fit", "--config", str(tiny), "--run", "x"]).run.path == Path("x")


@pytest.mark.parametrize(
    ("strategy", "named"),
    [
        ('{"class_path": "pytorch_lightning.strategies.ModelParallelStrategy"}', "ModelParallelStrategy.*: use ddp"),
        ("ddpp", "invalid strategy name"),
    ],
)
def test_a_strategy_that_cannot_be_used_is_refused_before_the_training(
    tiny: Path, workplace: Path, capsys: pytest.CaptureFixture[str], strategy: str, named: str
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["fit", "--config", str(tiny), "--run", "x", f"--trainer.strategy={strategy}", "--trainer.devices=2"])
    assert exit_.value.code == 2
    assert re.search(f"medmtl: error: .*{named}", capsys.readouterr().err)
    assert not RunFolder(Path("x")).exists
