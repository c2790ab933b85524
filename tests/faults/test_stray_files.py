"""Files as people leave them in a dataset: hidden ones, other endings, other letters, doubles; whatever its layout."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medmtl.data.check import check_task
from medmtl.data.task import Task
from medmtl.data.task_cases import TaskCases, task_cases
from medmtl.data_tools.examine import examine
from medmtl.data_tools.listing import list_folder
from medmtl.errors import DataError
from medmtl.results.dataset import Finding

IMAGE = np.random.default_rng(0).integers(0, 200, (8, 7, 6)).astype(np.int16)
CASES = ("one", "two", "three")
HIDDEN = b"\0\5\26\7\0\2\0\0Mac OS X        "  # what macOS writes beside a file on a foreign disk


def save(path: Path, voxels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)


def pairs(root: Path, image: str, label: str) -> Path:
    for number, case in enumerate(CASES):
        save(root / image.format(case), IMAGE + number)
        save(root / label.format(case), (100 + number < IMAGE).astype(np.uint8))
    return root


def msd(root: Path) -> Path:
    pairs(root, "imagesTr/{}.nii.gz", "labelsTr/{}.nii.gz")
    training = [{"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"} for case in CASES]
    content = {"labels": {"0": "background", "1": "organ"}, "training": training, "test": []}
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def nnunet(root: Path) -> Path:
    pairs(root, "imagesTr/{}_0000.nii.gz", "labelsTr/{}.nii.gz")
    content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "organ": 1}, "numTraining": len(CASES)}
    (root / "dataset.json").write_text(json.dumps({**content, "file_ending": ".nii.gz"}))
    return root


def folders(root: Path) -> Path:
    return pairs(root, "images/{}.nii.gz", "labels/{}.nii.gz")


def listed(root: Path) -> Path:
    pairs(root, "scans/{}.nii.gz", "masks/{}.nii.gz")
    rows = [f"scans/{case}.nii.gz,masks/{case}.nii.gz\n" for case in CASES]
    (root / "cases.csv").write_text("image,label\n" + "".join(rows))
    return root


def bids(root: Path) -> Path:
    pairs(root, "sub-{0}/anat/sub-{0}_T1w.nii.gz", "sub-{0}/anat/sub-{0}_dseg.nii.gz")
    (root / "dataset_description.json").write_text(json.dumps({"Name": "x", "BIDSVersion": "1.8.0"}))
    return root


LAYOUTS = (msd, nnunet, folders, listed, bids)
Layout = Callable[[Path], Path]


def found(root: Path) -> tuple[TaskCases, list[Finding]]:
    """What a training finds, after its checks, and what data check finds."""
    own = task_cases("T", Task(str(root), "CT", (1, 1, 1), [1]))
    check_task("T", own.cases, own.classes.foreground, own.declared)
    return own, examine([list_folder(root)], jobs=1)[1]


def images(root: Path) -> list[Path]:
    return sorted(root.rglob("*.nii.gz"))


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medmtl.data_tools.facts.thumbnail", lambda *_: b"")


@pytest.mark.parametrize("write", LAYOUTS)
def test_hidden_files_are_no_cases(tmp_path: Path, write: Layout, caplog: pytest.LogCaptureFixture) -> None:
    root = write(tmp_path / "data")
    before = found(root)[0]
    for path in images(root):
        (path.parent / f"._{path.name}").write_bytes(HIDDEN)
    (root / ".DS_Store").write_bytes(b"x")
    after, findings = found(root)
    assert after == before
    assert {finding.severity for finding in findings} <= {"note"}
    if write in (nnunet, folders):  # the others name every file, or what it begins with
        assert any("names begin with a dot, as macOS leaves them, are left out" in line for line in caplog.messages)
        assert any("begin with a dot" in finding.message for finding in findings)


@pytest.mark.parametrize("write", LAYOUTS)
def test_upper_case_endings_are_found(tmp_path: Path, write: Layout) -> None:
    root = write(tmp_path / "data")
    before = found(root)[0]
    for path in images(root):
        path.rename(path.with_name(path.name.replace(".nii.gz", ".NII.GZ")))
    after, findings = found(root)
    assert [case.name for case in after.cases] == [case.name for case in before.cases]
    assert {finding.severity for finding in findings} <= {"note"}


@pytest.mark.parametrize("write", [msd, nnunet, listed])
def test_a_label_with_another_ending_than_named_is_found_with_a_note(
    tmp_path: Path, write: Layout, caplog: pytest.LogCaptureFixture
) -> None:
    root = write(tmp_path / "data")
    for path in [path for path in images(root) if "label" in path.parts[-2] or "mask" in path.parts[-2]]:
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    own, findings = found(root)
    assert [case.labels[0].path.suffix for case in own.cases] == [".nii"] * 3
    expected = "3 files are there with another ending than named, such as one.nii for one.nii.gz"
    assert f"task T: {expected}" in caplog.messages
    assert expected in [finding.message for finding in findings]


@pytest.mark.parametrize("write", [msd, folders])
def test_content_decides_about_compression(tmp_path: Path, write: Layout, caplog: pytest.LogCaptureFixture) -> None:
    root = write(tmp_path / "data")
    path = images(root)[0]
    path.write_bytes(gzip.decompress(path.read_bytes()))
    _, findings = found(root)
    assert "the file is not compressed, other than its name says" in caplog.messages[0]
    assert [finding.severity for finding in findings] == ["warning"]


def test_an_entry_that_is_listed_twice_is_found_as_training_refuses_it(tmp_path: Path) -> None:
    root = msd(tmp_path / "data")
    content = json.loads((root / "dataset.json").read_text())
    content["training"].append(content["training"][1])
    (root / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="case two appears more than once"):
        found(root)
    errors = [each for each in examine([list_folder(root)], jobs=1)[1] if each.severity == "error"]
    assert [(each.rule, each.case) for each in errors] == [("name", "two")]
    assert errors[0].message == "2 cases have this name: imagesTr/two.nii.gz is listed again"


def test_one_name_in_two_folders_is_found_as_training_refuses_it(tmp_path: Path) -> None:
    for number, folder in enumerate("ab"):
        save(tmp_path / f"data/{folder}/scan.nii.gz", IMAGE + number)
    errors = [each for each in examine([list_folder(tmp_path / "data")], jobs=1)[1] if each.severity == "error"]
    assert [each.message for each in errors] == ["2 cases have this name: a/scan.nii.gz and b/scan.nii.gz"]


def test_other_files_beside_loose_images_are_named(tmp_path: Path) -> None:
    save(tmp_path / "data/scan.nii.gz", IMAGE)
    for name in ("a.zip", "b.zip", "c.bin", "d"):
        (tmp_path / "data" / name).write_bytes(b"x")
    notes = [finding.message for finding in examine([list_folder(tmp_path / "data")], jobs=1)[1]]
    assert "files that are no images of a dataset are left out: 2 .zip, 1 .bin, 1 without a suffix" in notes


def test_a_label_that_lies_elsewhere_for_lack_of_an_orientation_says_so(tmp_path: Path) -> None:
    root = folders(tmp_path / "data")
    image = nib.Nifti1Image(IMAGE, None)  # no codes: nibabel centres it
    nib.save(image, root / "images/one.nii.gz")
    cause = "another affine than its image"
    with pytest.raises(DataError, match=f"{cause}; the header of the image holds no orientation"):
        found(root)
    findings = examine([list_folder(root)], jobs=1)[1]
    (error,) = (finding for finding in findings if finding.severity == "error")
    assert error.message.endswith("; the header of the image holds no orientation")
