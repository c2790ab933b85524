"""Tasks of several classes are trained, tested, calibrated and predicted like others."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml

import medmtl
from medmtl.cli import main
from medmtl.runs.checkpoint import CHECKPOINT_KEY, read_checkpoint
from medmtl.runs.folder import RunFolder

BRAIN = {"whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
ORGANS = [f"organ {number}" for number in range(1, 9)]


def write_nnunet(root: Path, labels: dict[str, Any], cases: int, lacking: int = 0) -> None:
    """A dataset of nnU-Net with all values in each case; some cases lack the last three."""
    (root / "imagesTr").mkdir(parents=True)
    (root / "labelsTr").mkdir()
    values = sorted({value for own in labels.values() for value in (own if isinstance(own, list) else [own])} - {0})
    rng = np.random.default_rng(0)
    for number in range(cases):
        label = np.zeros((20, 18, 16), np.uint8)
        for place, value in enumerate(values[:-3] if number < lacking else values):
            label[2 + 2 * place : 4 + 2 * place, 4:14, 4:12] = value
        image = (label * 30 + rng.normal(size=label.shape)).astype(np.float32)
        nib.save(nib.Nifti1Image(image, np.eye(4)), root / f"imagesTr/case_{number:02d}_0000.nii.gz")
        nib.save(nib.Nifti1Image(label, np.eye(4)), root / f"labelsTr/case_{number:02d}.nii.gz")
    described = {"channel_names": {"0": "T1"}, "labels": labels, "numTraining": cases, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(described))


@pytest.fixture(scope="module")
def work(tiny: Path, made_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """A network of three tasks: two kidneys, regions with an ignored label, and eight organs that some cases lack."""

    def train(folder: Path) -> None:
        regions = {"background": 0, **BRAIN, "ignore": 4}
        write_nnunet(folder / "Dataset001_Brain", regions, cases=6)
        write_nnunet(folder / "Dataset002_Body", {"background": 0, **dict(zip(ORGANS, range(1, 9), strict=True))}, 6, 3)
        config = yaml.safe_load(tiny.read_text())
        kidney = config["data"]["tasks"]["KidneyT2"]
        del kidney["organ"]
        config["data"]["tasks"] = {
            "KidneyT2": {**kidney, "classes": {"left": 1, "right": 2}},
            "Brain": {
                "root": str(folder / "Dataset001_Brain"),
                "modality": "MR",
                "classes": ["whole", "core", "enhancing"],
                "spacing": [1, 1, 1],
            },
            "Body": {
                "root": str(folder / "Dataset002_Body"),
                "modality": "other",
                "classes": "all",
                "spacing": [1, 1, 1],
            },
        }
        config["data"]["ood"] = {}
        del config["model"]["network"]["init_args"]["out_channels"]
        (folder / "classes.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        run = str(folder / "runs" / "classes")
        main(["fit", "--config", str(folder / "classes.yaml"), "--run", run])
        main(["test", "--run", run])

    return made_once("classes", train)


@pytest.fixture
def run(work: Path) -> RunFolder:
    return RunFolder(work / "runs" / "classes")


def test_the_checkpoint_knows_classes_and_channels_without_the_data(run: RunFolder) -> None:
    checkpoint = read_checkpoint(run.best)
    config = yaml.safe_load(checkpoint[CHECKPOINT_KEY])
    assert config["data"]["tasks"]["Brain"]["classes"] == {
        name: np.atleast_1d(own).tolist() for name, own in BRAIN.items()
    }
    assert config["data"]["tasks"]["Body"]["classes"] == {name: [value] for value, name in enumerate(ORGANS, 1)}
    assert config["model"]["network"]["init_args"]["out_channels"] == 9
    # A background and two kidneys, three regions, a background and eight organs.
    assert checkpoint["state_dict"]["heads.last.weight"].shape == (3 + 3 + 9, 9, 1, 1, 1)


def test_every_class_is_measured(run: RunFolder) -> None:
    report = json.loads((run.report / "report.json").read_text())
    assert list(report["tasks"]["KidneyT2"]["classes"]) == ["left", "right"]
    assert list(report["tasks"]["Brain"]["classes"]) == list(BRAIN)
    assert list(report["tasks"]["Body"]["classes"]) == ORGANS
    logged = (run.path / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"val/KidneyT2/left/dice", "test/Body/organ 8/hd95_mm", "test/mean/dice"} <= set(logged)
    assert report["routing"]["cases"] == sum(report["tasks"][task]["cases"] for task in report["tasks"])


def test_a_class_that_no_test_case_has_is_no_zero(run: RunFolder) -> None:
    cases = json.loads(run.splits.read_text())["Body"]["test"]
    lacking = sum(int(case.removeprefix("case_")) < 3 for case in cases)
    found = json.loads((run.report / "report.json").read_text())["tasks"]["Body"]["classes"]["organ 8"]["dice"]
    assert found["undefined"] == lacking


def test_a_prediction_has_the_label_values_of_the_dataset_and_needs_none_of_its_files(
    run: RunFolder, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tmp_path / "alone.ckpt"
    shutil.copy(run.best, checkpoint)
    scan = tmp_path / "torso_011_0000.nii.gz"
    shutil.copy(work / "Dataset001_Brain/imagesTr/case_00_0000.nii.gz", scan)
    out = tmp_path / "out"
    arguments = ["predict", "--ckpt-path", str(checkpoint), "--input", str(scan), "--output", str(out)]
    main([*arguments, "--task", "Brain", "--suffix", "", "--probability"])
    mask = nib.load(out / "torso_011.nii.gz")
    assert mask.shape == (20, 18, 16)
    assert set(np.unique(np.asarray(mask.dataobj))) <= {0, 1, 2, 3}
    record = json.loads((out / "torso_011.json").read_text())
    assert record["labels"] == {"whole": 1, "core": 2, "enhancing": 3}
    assert nib.load(out / record["files"]["probability"]).shape == (20, 18, 16, 3)
    found = medmtl.load(checkpoint).predict(scan)
    assert found.task in ("KidneyT2", "Brain", "Body")
    assert set(found.volumes_ml) == set(found.classes)


def test_calibrate_and_ood_read_the_heads_too(run: RunFolder, tmp_path: Path) -> None:
    copy = RunFolder(tmp_path / "run")
    shutil.copytree(run.path, copy.path)
    before = read_checkpoint(copy.best)["state_dict"]["heads.last.weight"]
    main(["calibrate", "--run", str(copy.path)])
    after = read_checkpoint(copy.best)
    assert torch.equal(before, after["state_dict"]["heads.last.weight"])
    assert set(after["callbacks"]["ScalingCallback"]["tasks"]) == {"KidneyT2", "Brain", "Body"}
    shares = after["callbacks"]["ScalingCallback"]["shares"]
    assert set(shares) == {"KidneyT2", "Body"}  # the regions of Brain overlap
    assert all(fitted["scaling"] is None and "3 are needed" in fitted["refused"] for fitted in shares.values())


def test_an_ensemble_pools_the_classes_too(run: RunFolder, tmp_path: Path) -> None:
    copy = RunFolder(tmp_path / "run")
    shutil.copytree(run.path, copy.path)
    plain = json.loads((run.report / "report.json").read_text())["tasks"]["KidneyT2"]
    other = read_checkpoint(copy.best)
    for name in ("network.model.0.conv.weight", "heads.last.weight"):
        other["state_dict"][name] = other["state_dict"][name] * 1.5
    torch.save(other, tmp_path / "other.ckpt")
    main(["test", "--run", str(copy.path), f"--model.ensemble.checkpoints=[{tmp_path / 'other.ckpt'}]"])
    pooled = json.loads((copy.report / "report.json").read_text())["tasks"]["KidneyT2"]
    for name in ("left", "right"):
        for kind in ("calibration", "calibration_scaled"):
            before, after = (task["classes"][name][kind]["whole"]["nll"] for task in (plain, pooled))
            assert before != after
    other["state_dict"]["heads._extra_state"] = list(reversed(other["state_dict"]["heads._extra_state"]))
    torch.save(other, tmp_path / "other.ckpt")
    with pytest.raises(SystemExit):
        main(["test", "--run", str(copy.path), f"--model.ensemble.checkpoints=[{tmp_path / 'other.ckpt'}]"])


def test_one_output_merges_the_classes_and_outputs_per_task_can_start_from_its_body(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, tuned = RunFolder(tmp_path / "shared"), RunFolder(tmp_path / "tuned")
    fit = ["fit", "--config", str(work / "classes.yaml"), "--run"]
    main([*fit, str(run.path), "--model.outputs", "shared"])
    assert "heads.last.weight" not in read_checkpoint(run.best)["state_dict"]
    logged = (run.path / "metrics.csv").read_text().splitlines()[0]
    assert "val/KidneyT2/dice" in logged
    assert "left" not in logged
    start = [f"--model.finetune.checkpoint={run.best}", "--model.finetune.layers=head"]
    capsys.readouterr()
    main([*fit, str(tuned.path), *start, "--spectral.layers=[]"])
    before, after = (read_checkpoint(each.best)["state_dict"] for each in (run, tuned))
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {name for name in before if not name.startswith("network.model.2.")}
    # The table at the end of a training has a row a class.
    (left,) = (line.split() for line in capsys.readouterr().out.splitlines() if line.split()[1:2] == ["left"])
    (logged, *rows) = (line.split(",") for line in (tuned.path / "metrics.csv").read_text().splitlines())
    column = logged.index("val/KidneyT2/left/dice")
    assert float(left[3]) in [pytest.approx(float(row[column]), abs=6e-4) for row in rows if row[column]]
