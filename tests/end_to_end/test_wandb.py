"""An offline W&B run is complete: its own record holds every figure of the run folder, read back from disk."""

import csv
import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import wandb
import yaml
from matplotlib.image import imread
from wandb_record import WandbRun, read_runs

from medmtl.cli import main
from medmtl.experiment.panels import describe


@pytest.fixture(scope="module")
def mirrored(tiny: Path, made_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """A run folder whose training was interrupted and resumed, then tested, all with W&B offline."""
    return made_once("mirrored", lambda folder: _train(tiny, folder / "runs" / "mirrored")) / "runs" / "mirrored"


def _train(tiny: Path, run: Path) -> None:
    options = ["--wandb.mode=offline", "--wandb.group=study", "--wandb.job_type=multitask"]
    options += ["--wandb.tags=[LiverCT, seed0]", "--trainer.log_every_n_steps=1"]
    whole = ["--model.scheduler.init_args.total_steps=6", "--trainer.max_steps=3"]
    main(["fit", "--config", str(tiny), "--run", str(run), *options, *whole])
    main(["fit", "--run", str(run), "--resume", "--trainer.max_steps=6"])
    main(["test", "--run", str(run)])
    wandb.teardown()  # another process writes the files, which other workers read


@pytest.fixture(scope="module")
def parts(mirrored: Path) -> list[WandbRun]:
    """The W&B runs of the two parts of the training and of the test."""
    return list(read_runs(mirrored).values())


def test_the_record_holds_every_value_of_metrics_csv(mirrored: Path, parts: list[WandbRun]) -> None:
    expected = defaultdict(list)
    with (mirrored / "metrics.csv").open(newline="") as stream:
        for row in csv.DictReader(stream):
            for key, value in row.items():
                if value and key not in ("epoch", "step"):
                    expected[key].append(float(value))
    assert len(expected["train/loss"]) == 6
    assert len(expected["val/mean/dice"]) == 2
    assert len(expected["test/KidneyT2/ece_band"]) == 1
    for key, values in expected.items():
        np.testing.assert_array_equal([float(value) for part in parts for value in part.values(key)], values, key)


def test_the_record_holds_the_whole_configuration(mirrored: Path, parts: list[WandbRun]) -> None:
    for part, name in ((parts[1], "config.yaml"), (parts[2], "config.test.yaml")):
        saved = yaml.safe_load((mirrored / name).read_text())
        assert {key: part.config[key] for key in saved} == saved
        assert part.config["model"]["network"]["class_path"].endswith("UNet")
        assert list(part.config["data"]["tasks"]) == ["LiverCT", "KidneyT2"]
    assert parts[1].config["model"]["optimizer"]["init_args"]["lr"] == 0.01
    assert parts[2].config["model"]["optimizer"] is None  # a test builds none


def test_every_part_carries_group_job_type_and_tags(parts: list[WandbRun]) -> None:
    assert len(parts) == 3
    for part in parts:
        assert (part.group, part.job_type, part.tags) == ("study", "multitask", ["LiverCT", "seed0"])


def test_a_resumed_training_names_the_earlier_part_and_the_test_names_its_training(
    mirrored: Path, parts: list[WandbRun]
) -> None:
    first, second, test = parts
    assert second.config["resumed_from"] == first.id
    assert test.config["fit"] == second.id
    assert not {"resumed_from", "fit"} & set(first.config)
    assert json.loads((mirrored / "run.json").read_text())["wandb"] == {"fit": [first.id, second.id], "test": [test.id]}


def test_the_record_names_the_figures_and_its_folder_holds_them(mirrored: Path, parts: list[WandbRun]) -> None:
    _, second, test = parts
    figures = list((mirrored / "report" / "figures").glob("*.png"))
    stems = {path.stem for path in figures}
    assert {"dice", "reliability-band", "score-spectral", "spectra-model.0", "roc"} <= stems
    assert {"slices-LiverCT-only", "map-LiverCT-only"} <= stems
    for path in figures:
        assert test.images(f"test/{path.stem}") == [path.read_bytes()], path.stem
    for region in ("whole", "band"):
        drawn = (mirrored / "figures" / f"val_reliability_{region}.png").read_bytes()
        assert second.images(f"val/reliability_{region}") == [drawn]


def test_detection_is_logged_as_the_report_has_it(mirrored: Path, parts: list[WandbRun]) -> None:
    ood = json.loads((mirrored / "report" / "report.json").read_text())["ood"]
    assert {"spectral", "entropy"} <= set(ood["scores"])
    for score, found in ood["scores"].items():
        assert parts[2].values(f"test/ood/{score}/auroc") == [found["auroc"]]
    verdict = ood["verdict"]
    assert parts[2].values("test/ood/verdict/auroc") == [ood["scores"][verdict["score"]]["auroc"]]
    for rate in ("false_alarm_rate", "detection_rate"):
        assert parts[2].values(f"test/ood/verdict/{rate}") == [verdict[rate]]
    other = ood["datasets"]["OtherPhantom"]
    assert parts[2].values("test/OtherPhantom/rejected_rate") == [other["rejected"] / other["decided"]]
    with (mirrored / "metrics.csv").open(newline="") as stream:
        (row,) = [row for row in csv.DictReader(stream) if row["test/ood/verdict/auroc"]]
    assert float(row["test/ood/entropy/auroc"]) == ood["scores"]["entropy"]["auroc"]


def test_calibration_is_logged_before_and_after_scaling(mirrored: Path, parts: list[WandbRun]) -> None:
    found = json.loads((mirrored / "report" / "report.json").read_text())["mean"]
    for kind, after in (("calibration", ""), ("calibration_scaled", "_scaled")):
        (logged,) = parts[2].values(f"test/mean/ace_band{after}")
        assert logged == pytest.approx(found[kind]["band"]["ace"])


def test_a_table_has_every_test_case_and_a_picture_of_each_with_a_label(mirrored: Path, parts: list[WandbRun]) -> None:
    (table,) = parts[2].tables("test/cases")
    with (mirrored / "report" / "cases.csv").open(newline="") as stream:
        cases = list(csv.DictReader(stream))
    assert table["columns"] == [*cases[0], "picture"]
    assert len(table["data"]) == len(cases) == 14
    for row, case in zip(table["data"], cases, strict=True):
        assert row[table["columns"].index("case")] == case["case"]
        assert str(row[table["columns"].index("rejected")]) == case["rejected"]
        picture = row[-1]
        assert (picture is not None) == (case["expected"] == "in")
        if picture is not None:
            assert picture.is_relative_to(mirrored.resolve())
            assert imread(picture).shape[0] == 128


def test_the_dashboard_shows_only_what_runs_log(parts: list[WandbRun]) -> None:
    logged = {key for part in parts for row in part.history for key in row}
    assert describe("someone", "medmtl", ["LiverCT", "KidneyT2"]).keys <= logged
