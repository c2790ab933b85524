"""`medmtl experiment` from nothing: every arm runs once, is compared, and is neither lost nor repeated."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from medmtl.cli import main
from medmtl.runs.checkpoint import read_checkpoint

EXPERIMENT = {"arms": ["dedicated", "transfer", "multitask"], "steps": 12, "validations": 2, "at_once": 2}


def write_experiment(folder: Path, base: Path, **options: Any) -> Path:
    overrides = {"data.ood": {}, "spectral.layers": []}
    config = {"base": str(base), "overrides": overrides, **EXPERIMENT, **options}
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


@pytest.fixture(scope="module", autouse=True)
def _forked(forked: None) -> None:
    """Every experiment here starts forks, and none of its figures is drawn."""


@pytest.fixture(scope="module")
def finished(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an experiment that ran to its end."""
    place = tmp_path_factory.mktemp("experiment")
    main(["experiment", "--config", str(write_experiment(place, tiny)), "--run", str(place / "runs/study")])
    return place / "runs/study"


def comparison(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "compare/compare.json").read_text())
    return found


def test_every_arm_is_trained_tested_and_compared_on_every_task(finished: Path) -> None:
    found = comparison(finished)
    assert list(found["arms"]) == EXPERIMENT["arms"]
    assert list(found["tasks"]) == ["LiverCT", "KidneyT2"]
    for task in found["tasks"].values():
        assert list(task["arms"]) == EXPERIMENT["arms"]
        assert {(pair["a"], pair["b"]) for pair in task["pairs"]} == {
            ("transfer", "dedicated"),
            ("multitask", "dedicated"),
            ("multitask", "transfer"),
        }
    assert found["budget"]["text"] == "12 optimizer steps of 2 patches a model, pre-training included"
    assert (found["refused"], found["missing"]) == ([], [])


def test_the_comparison_is_of_the_cases_that_the_reports_hold(finished: Path) -> None:
    for run in json.loads((finished / "compare/compare.json").read_text())["runs"]:
        with (finished / "runs" / run["name"] / "report/cases.csv").open() as stream:
            rows = [row for row in csv.DictReader(stream) if row["expected"] == "in"]
        for task in {row["dataset"] for row in rows}:
            dice = [float(row["dice"]) for row in rows if row["dataset"] == task]
            arm = comparison(finished)["tasks"][task]["arms"][run["arm"]]["dice"]
            assert arm["mean"] == pytest.approx(sum(dice) / len(dice))
            assert arm["n"] == len({row["patient"] for row in rows if row["dataset"] == task})


def test_each_model_has_had_the_steps_of_the_budget(finished: Path) -> None:
    steps = {}
    for path in finished.glob("runs/*/run.json"):
        manifest = json.loads(path.read_text())
        steps[path.parent.name.rpartition("-")[0]] = manifest["fit"]["steps"]
    assert steps["dedicated-LiverCT-seed0"] == steps["multitask-seed0"] == 12
    assert steps["pretraining-without-LiverCT-seed0"] + steps["transfer-LiverCT-seed0"] == 12


def test_transfer_starts_from_the_weights_of_its_pretraining(finished: Path) -> None:
    config = yaml.safe_load((finished / "configs/transfer-LiverCT-seed0.yaml").read_text())
    source = Path(config["model"]["finetune"]["checkpoint"])
    assert source.is_file()
    assert source.parent.parent.name.startswith("pretraining-without-LiverCT-seed0-")


def test_without_layers_there_is_no_signature_and_no_verdict(finished: Path) -> None:
    (run,) = finished.glob("runs/multitask-seed0-*")
    report = json.loads((run / "report/report.json").read_text())
    assert "SpectralCallback" not in read_checkpoint(run / "checkpoints/best.ckpt")["callbacks"]
    assert report["ood"]["verdict"]["in_decided"] == 0


def test_starting_again_trains_nothing(finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.glob("runs/*/checkpoints/*.ckpt")}
    main(["experiment", "--run", str(finished)])
    assert {path: path.stat().st_mtime_ns for path in finished.glob("runs/*/checkpoints/*.ckpt")} == before


def test_an_arm_is_run_again_by_hand_from_its_configuration(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["fit", "--config", str(finished / "configs/dedicated-LiverCT-seed0.yaml"), "--run", "by-hand"])
    main(["test", "--run", "by-hand"])
    (run,) = finished.glob("runs/dedicated-LiverCT-seed0-*")
    reports = [json.loads((folder / "report/report.json").read_text()) for folder in (run, tmp_path / "by-hand")]
    assert reports[0]["tasks"] == reports[1]["tasks"]


def test_a_dry_run_writes_the_configurations_and_trains_nothing(
    tiny: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_experiment(workplace, tiny, folds=3)
    main(["experiment", "--config", str(config), "--dry-run"])
    assert len(list(Path("runs/study/configs").iterdir())) == 3 * 7
    assert not Path("runs/study/runs").exists()
    assert "multitask-fold1-seed0" in capsys.readouterr().out


def test_a_dry_run_of_another_protocol_leaves_the_plan_of_the_first(finished: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(finished, tmp_path / "study", ignore=shutil.ignore_patterns("*.ckpt"))
    plan = {path: path.read_text() for path in [*copy.glob("jobs/*.json"), copy / "experiment.yaml"]}
    main(["experiment", "--run", str(copy), "--arms=[multitask]", "--dry-run"])
    assert {path: path.read_text() for path in [*copy.glob("jobs/*.json"), copy / "experiment.yaml"]} == plan


def test_a_key_without_a_value_is_as_if_it_were_not_there_and_run_names_the_folder(tiny: Path, workplace: Path) -> None:
    Path("study.yaml").write_text(f"base: {tiny}\nrun: another\nsteps: 12\nvalidations: 2\noverrides:\n")
    main(["experiment", "--config", "study.yaml", "--dry-run"])
    assert len(list(Path("runs/another/configs").iterdir())) == 7


def test_an_experiment_of_an_earlier_version_is_read_with_one_warning(
    tiny: Path, workplace: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = write_experiment(workplace, tiny, overrides={"data.foreign": {}}, source="LiverCT", arms=["transfer"])
    main(["experiment", "--config", str(config), "--at_once=1", "--dry-run"])
    assert len(list(Path("runs/study/configs").glob("transfer-KidneyT2-*"))) == 1
    warnings = [record.message for record in caplog.records if "earlier version" in record.message]
    assert warnings == [
        f"{config} uses names of an earlier version: data.foreign is now data.ood, source is now pretrain_on"
    ]


def test_one_folder_is_of_one_base(
    finished: Path, tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copy(tiny, tmp_path / "other.yaml")
    with pytest.raises(SystemExit):
        main(["experiment", "--run", str(finished), "--base", str(other)])
    assert f"holds an experiment on {tiny}" in capsys.readouterr().err


def test_a_run_that_fails_is_named_and_the_others_go_on(
    tiny: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {"model.network.init_args.channels": [4, 16]}
    config = write_experiment(
        workplace, tiny, arms=["transfer", "multitask"], pretrain_on="LiverCT", finetune_overrides=wrong
    )
    with pytest.raises(SystemExit) as ended:
        main(["experiment", "--config", str(config)])
    assert ended.value.code == 1
    says = capsys.readouterr().err.splitlines()[-1]
    assert "1 of 3 training runs did not finish (transfer-KidneyT2-seed0: " in says
    assert "holds another network" in says
    assert list(comparison(Path("runs/study"))["arms"]) == ["multitask"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "no experiment is named"),
        (["--config", "nowhere.yaml"], "there is no configuration nowhere.yaml"),
        (["--run", "nowhere"], "nowhere holds no experiment"),
        (["--config", "experiment-quick.yaml", "--stepps=3"], "stepps"),
        (["--config", "experiment-quick.yaml", "--steps=many"], "steps"),
        (["--config", "experiment-quick.yaml", "--arms=[tranfer]"], "arms names tranfer"),
        (["--config", "experiment-quick.yaml", "--overrides", "{trainer.precison: 16}"], "precison"),
    ],
)
def test_wrong_usage_is_one_line(
    workplace: Path, capsys: pytest.CaptureFixture[str], options: list[str], says: str
) -> None:
    with pytest.raises(SystemExit):
        main(["experiment", *options])
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line


def test_compare_says_what_to_do_where_there_is_nothing_to_compare(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["compare", "runs/nothing"])
    (line,) = capsys.readouterr().err.splitlines()
    assert "runs/nothing" in line
