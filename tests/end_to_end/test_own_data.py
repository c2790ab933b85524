"""A lab's own folder, two channels and partly annotated: one configuration trains, tests and calibrates on it."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml

import medmtl
from medmtl.cli import main
from medmtl.runs.folder import RunFolder


def write_nnunet(root: Path, cases: int) -> None:
    rng = np.random.default_rng(0)
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    names = [f"case_{number:02d}" for number in range(cases)]
    for name in names:
        label = np.zeros((20, 18, 16), np.uint8)
        x, y, z = rng.integers(3, 8, 3)
        label[x : x + 8, y : y + 7, z : z + 6] = 2
        label[x : x + 4, y : y + 7, z : z + 6] = 1
        for channel in range(2):
            image = rng.normal(size=label.shape) + (label > channel) * 3
            nib.save(
                nib.Nifti1Image(image.astype(np.float32), np.eye(4)), root / f"imagesTr/{name}_000{channel}.nii.gz"
            )
        label[:, :3] = 3
        nib.save(nib.Nifti1Image(label, np.eye(4)), root / f"labelsTr/{name}.nii.gz")
    described = {
        "channel_names": {"0": "T1", "1": "FLAIR"},
        "labels": {"background": 0, "tumour": [1, 2], "core": 1, "ignore": 3},
        "numTraining": cases,
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(described))
    folds = [{"train": names[2:], "val": names[:2]}, {"train": names[:-2], "val": names[-2:]}]
    (root / "splits_final.json").write_text(json.dumps(folds))


@pytest.fixture
def config(tiny: Path, workplace: Path) -> dict[str, Any]:
    """The quick configuration, with a task of nnU-Net's layout beside one whose folders follow a pattern."""
    write_nnunet(workplace / "Dataset007_Tumour", cases=6)
    own = workplace / "own"
    for number in range(6):
        folder = own / f"case_{number:02d}"
        folder.mkdir(parents=True)
        for channel, name in enumerate(("t1", "flair")):
            source = workplace / f"Dataset007_Tumour/imagesTr/{folder.name}_000{channel}.nii.gz"
            shutil.copy(source, folder / f"{name}.nii.gz")
        label = nib.load(workplace / f"Dataset007_Tumour/labelsTr/{folder.name}.nii.gz")
        mask = (np.asarray(label.dataobj) == 1).astype(np.uint8)
        nib.save(nib.Nifti1Image(mask, label.affine), folder / "core.nii.gz")
    config: dict[str, Any] = yaml.safe_load(tiny.read_text())
    shared = {"modality": "MR", "spacing": [1, 1, 1], "channel": [0, 1]}
    config["data"]["tasks"] = {
        "Tumour": {"root": str(workplace / "Dataset007_Tumour"), "organ": ["tumour"], "fold": 1, **shared},
        "Core": {
            "root": str(own),
            "organ": ["core"],
            "layout": {
                "class_path": "medmtl.data.layouts.folders.Folders",
                "init_args": {"images": ["{case}/t1", "{case}/flair"], "labels": {"core": "{case}/core"}},
            },
            **shared,
        },
    }
    config["data"]["ood"] = {}
    config["model"]["network"]["init_args"]["in_channels"] = 2
    return config


def saved(config: dict[str, Any]) -> str:
    Path("own.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return "own.yaml"


@pytest.mark.usefixtures("laid_out")
def test_own_folders_train_test_and_calibrate(config: dict[str, Any]) -> None:
    main(["fit", "--config", saved(config), "--run", "runs/own"])
    main(["test", "--run", "runs/own"])
    main(["calibrate", "--run", "runs/own"])
    run = RunFolder(Path("runs/own"))
    splits = json.loads((run.path / "splits.json").read_text())
    # The fold's validation cases are tested, in the task that shares its patients, too.
    for parts in splits.values():
        assert parts["test"] == ["case_04", "case_05"]
        assert len(parts["val"]) == 1
    report = json.loads((run.report / "report.json").read_text())
    assert set(report["tasks"]) == {"Tumour", "Core"}


def test_what_stacks_channels_predicts_as_it_was_tested(config: dict[str, Any], workplace: Path) -> None:
    for task in config["data"]["tasks"].values():
        task["channel"] = [1, 0]
    main(["fit", "--config", saved(config), "--run", "runs/own"])
    main(["test", "--run", "runs/own"])
    with Path("runs/own/report/cases.csv").open(newline="") as stream:
        tested = {row["case"]: row for row in csv.DictReader(stream) if row["dataset"] == "Tumour"}
    Path("scans").mkdir()
    for name in tested:  # one image as a file a channel, the other with its channels as volumes
        files = [workplace / f"Dataset007_Tumour/imagesTr/{name}_000{channel}.nii.gz" for channel in range(2)]
        volumes = np.stack([nib.load(file).get_fdata(dtype=np.float32) for file in files], axis=-1)
        nib.save(nib.Nifti1Image(volumes, np.eye(4)), f"scans/{name}.nii.gz")
    main(["predict", "--run", "runs/own", "--input", "Dataset007_Tumour/imagesTr", "--output", "files", "--report"])
    main(["predict", "--run", "runs/own", "--input", "scans", "--output", "volumes", "--task", "Tumour"])
    model = medmtl.load("runs/own")
    for name, row in tested.items():
        verdict = json.loads(Path(f"files/{name}.json").read_text())
        assert verdict["p_value"] == pytest.approx(float(row["p_value"]))
        assert verdict["nearest_task"] == row["nearest_task"]
        masks = [np.asarray(nib.load(f"{out}/{name}_mask.nii.gz").dataobj) for out in ("files", "volumes")]
        np.testing.assert_array_equal(*masks)
        assert 0 < masks[0].mean() < 1
        label = np.asarray(nib.load(f"Dataset007_Tumour/labelsTr/{name}.nii.gz").dataobj)
        mask, truth = masks[0][label != 3] == 1, np.isin(label[label != 3], [1, 2])
        assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) == pytest.approx(float(row["dice"]), abs=1e-6)
        volumes = nib.load(f"scans/{name}.nii.gz").get_fdata(dtype=np.float32)
        files = [f"Dataset007_Tumour/imagesTr/{name}_000{channel}.nii.gz" for channel in range(2)]
        for image, affine in ((files, None), (files[1], None), (np.moveaxis(volumes, 3, 0), np.eye(4))):
            found = model.predict(image, affine)
            np.testing.assert_array_equal(found.mask, masks[0])
            assert found.p_value == pytest.approx(verdict["p_value"])
            assert found.volume_ml == pytest.approx(masks[0].sum() / 1000)


@pytest.mark.parametrize(
    ("section", "change", "words", "code"),
    [
        ("network", {"in_channels": 1}, "takes 1 channels and the tasks", 2),
        ("Core", {"channel": 1}, "Core uses 1 channels and Tumour 2", 2),
        ("Core", {"organ": ["liver"]}, "organ liver is not among", 1),
        ("Tumour", {"fold": 2}, "fold 2, but", 1),
        ("Tumour", {"channel": [0, 2]}, "is one of 2 channels, counted from 0, and channel 2", 1),
    ],
)
def test_what_does_not_fit_is_one_line_before_anything_is_written(
    config: dict[str, Any],
    section: str,
    change: dict[str, Any],
    words: str,
    code: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sections = {"network": config["model"]["network"]["init_args"], **config["data"]["tasks"]}
    sections[section].update(change)
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", saved(config), "--run", "runs/own"])
    assert stopped.value.code == code
    assert words in capsys.readouterr().err.strip().splitlines()[-1]
    assert not Path("runs").exists()
