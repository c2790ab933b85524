"""`medmtl predict` on a trained run: the verdicts are those of its test, and Python gives what the command writes."""

import csv
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

import medmtl
from medmtl.cli import main


@pytest.fixture(scope="session")
def predicted(trained: Path, phantom_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What was predicted of all foreign images, and of all images of a task."""
    out = tmp_path_factory.mktemp("predicted")
    for source in ("OtherPhantom/imagesTs", "LiverCT/imagesTr"):
        images = phantom_store / "phantoms-v1" / source
        main(["predict", "--run", str(trained), "--input", str(images), "--output", str(out / source), "--report"])
    return out


def record(path: Path) -> dict:
    return json.loads(path.read_text())


def test_verdicts_are_those_of_the_test(trained: Path, predicted: Path) -> None:
    with (trained / "report" / "cases.csv").open(newline="") as stream:
        tested = [row for row in csv.DictReader(stream) if row["source"] in ("OtherPhantom", "LiverCT")]
    assert {row["source"] for row in tested} == {"OtherPhantom", "LiverCT"}
    for row in tested:
        (found,) = predicted.glob(f"{row['source']}/*/{row['case']}.json")
        verdict = record(found)
        assert verdict["p_value"] == pytest.approx(float(row["p_value"]))
        assert verdict["nearest_task"] == row["nearest_task"]
        assert verdict["recipe"] == row["recipe"]
        assert verdict["in_distribution"] is {"True": False, "False": True, "": None}[row["rejected"]]


def test_masks_have_the_grids_of_their_images(predicted: Path, phantoms: Path) -> None:
    for image in (phantoms / "OtherPhantom" / "imagesTs").iterdir():
        mask = nibabel.load(predicted / "OtherPhantom" / "imagesTs" / f"{image.name.split('.')[0]}_mask.nii.gz")
        np.testing.assert_array_equal(mask.affine, nibabel.load(image).affine)
        assert mask.shape == nibabel.load(image).shape
        assert set(np.unique(mask.get_fdata())) <= {0, 1}


def test_python_gives_what_the_command_writes(trained: Path, predicted: Path, phantoms: Path) -> None:
    image = sorted((phantoms / "LiverCT" / "imagesTr").iterdir())[0]
    model = medmtl.load(trained)
    prediction = model.predict(image)
    name = image.name.split(".")[0]
    verdict = record(predicted / "LiverCT" / "imagesTr" / f"{name}.json")
    mask = nibabel.load(predicted / "LiverCT" / "imagesTr" / f"{name}_mask.nii.gz")
    np.testing.assert_array_equal(prediction.mask, mask.get_fdata())
    assert (prediction.p_value, prediction.nearest_task) == (verdict["p_value"], verdict["nearest_task"])
    assert model.name == verdict["model"]["name"]


def test_alpha_decides_and_p_values_stay(trained: Path, predicted: Path, phantoms: Path, workplace: Path) -> None:
    images = phantoms / "OtherPhantom" / "imagesTs"
    given = ["predict", "--run", str(trained), "--input", str(images), "--output", "out", "--alpha"]
    main([*given, "0.001"])
    for path in Path("out").glob("*.json"):
        strict, before = record(path), record(predicted / "OtherPhantom" / "imagesTs" / path.name)
        assert strict["in_distribution"] is None
        assert strict["alpha"] == 0.001
        assert strict["p_value"] == before["p_value"]
        assert any("0.001" in warning for warning in strict["warnings"])
