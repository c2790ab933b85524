"""`medmtl predict` on a trained run: the verdicts are those of its test, and Python gives what the command writes."""

import csv
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from dicom_sample import write_series

import medmtl
from medmtl.cli import main

CONSTANT = "constant"  # an image of the foreign ones in which there is nothing to segment


def predict(run: Path, images: Path, out: Path, *flags: str) -> int:
    try:
        main(["predict", "--run", str(run), "--input", str(images), "--output", str(out), *flags])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture(scope="session")
def predicted(trained: Path, phantom_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What was predicted of all foreign images, and of the labelled images of a task."""
    out = tmp_path_factory.mktemp("predicted")
    for source, code in (("OtherPhantom/imagesTs", 3), ("LiverCT/imagesTr", 0)):
        assert predict(trained, phantom_store / "phantoms-v1" / source, out / source, "--report") == code
    return out


def record(path: Path) -> dict:
    return json.loads(path.read_text())


def test_verdicts_are_those_of_the_test(trained: Path, predicted: Path) -> None:
    with (trained / "report" / "cases.csv").open(newline="") as stream:
        tested = [row for row in csv.DictReader(stream) if row["dataset"] in ("OtherPhantom", "LiverCT")]
    assert {row["dataset"] for row in tested} == {"OtherPhantom", "LiverCT"}
    assert CONSTANT in [row["case"] for row in tested]
    for row in tested:
        if row["case"] == CONSTANT:
            continue
        (found,) = predicted.glob(f"{row['dataset']}/*/{row['case']}.json")
        verdict = record(found)
        assert verdict["p_value"] == pytest.approx(float(row["p_value"]))
        assert verdict["nearest_task"] == row["nearest_task"]
        assert verdict["preprocessing"] == row["preprocessing"]
        assert verdict["in_distribution"] is {"True": False, "False": True, "": None}[row["rejected"]]


def test_masks_have_the_grids_of_their_images(predicted: Path, phantoms: Path) -> None:
    images = [path for path in (phantoms / "OtherPhantom" / "imagesTs").iterdir() if CONSTANT not in path.name]
    assert len(images) == 11
    for image in images:
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
    assert list(prediction.warnings) == verdict["warnings"]


def test_an_alpha_that_the_training_held_out_too_few_for_decides_nothing(
    trained: Path, phantoms: Path, workplace: Path
) -> None:
    images = phantoms / "OtherPhantom" / "imagesTs"
    assert predict(trained, images, Path("out"), "--alpha", "0.001", "--on-ood", "skip") == 3
    assert len([*Path("out").glob("*.json")]) == 11
    for path in Path("out").glob("*.json"):
        verdict = record(path)
        assert (verdict["in_distribution"], verdict["alpha"]) == (None, 0.001)
        assert verdict["mask"] is not None
        assert any("0.001" in warning for warning in verdict["warnings"])


@pytest.mark.real_data
def test_a_dicom_series_gives_the_mask_of_its_nifti(trained: Path, real_data: Path, workplace: Path) -> None:
    image = nibabel.load(sorted((real_data / "SarcomaCT" / "imagesTr").iterdir())[0])
    voxels = np.rint(image.get_fdata()).astype(np.int16)
    Path("scans").mkdir()
    nibabel.save(nibabel.Nifti1Image(voxels, image.affine), "scans/file.nii.gz")
    write_series(Path("scans/series"), voxels, image.affine)
    assert predict(trained, Path("scans"), Path("out"), "--modality", "CT") == 0
    masks = [nibabel.as_closest_canonical(nibabel.load(f"out/{name}_mask.nii.gz")) for name in ("file", "series")]
    np.testing.assert_allclose(masks[0].affine, masks[1].affine, atol=1e-3)
    found = [mask.get_fdata() for mask in masks]
    assert 0 < found[0].mean() < 1
    assert (found[0] != found[1]).mean() < 1e-4  # DICOM writes places as decimals of 16 characters
    verdicts = [record(Path("out", f"{name}.json")) for name in ("file", "series")]
    assert verdicts[0]["in_distribution"] is verdicts[1]["in_distribution"]
    assert verdicts[0]["ood_score"] == pytest.approx(verdicts[1]["ood_score"], rel=1e-3)
