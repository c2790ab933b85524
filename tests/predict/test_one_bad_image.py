"""One bad image in a batch: whatever is wrong with it, it is listed, and the others are segmented."""

import csv
import os
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from predict_sample import AFFINE, save_scan

from medmtl.io.reader import Scan

VOXELS = np.random.default_rng(0).normal(size=(12, 10, 8)).astype(np.float32)


def extreme(folder: Path) -> str:
    nibabel.save(nibabel.Nifti1Image(VOXELS * np.float32(3e37), AFFINE), folder / "bad.nii.gz")
    return "which are no intensities"


def link(folder: Path) -> str:
    (folder / "bad.nii.gz").symlink_to("gone/scan.nii.gz")
    return "is missing (a link to gone/scan.nii.gz)"


def pipe(folder: Path) -> str:
    os.mkfifo(folder / "bad.nii.gz")
    return "it is a pipe or a device"


def foreign_name(folder: Path) -> str:
    (folder / os.fsdecode(b"bad\xff.nii.gz")).write_bytes(b"no image")
    return "cannot be read (it has no header of NIfTI)"


def flipped(folder: Path) -> str:
    save_scan(folder / "bad.nii.gz", 3)
    content = bytearray((folder / "bad.nii.gz").read_bytes())
    content[-6] ^= 1
    (folder / "bad.nii.gz").write_bytes(content)
    return "its compressed data are damaged"


def promising(folder: Path) -> str:
    (folder / "bad.nrrd").write_bytes(
        b"NRRD0004\ntype: short\ndimension: 3\nsizes: 900 900 900\nencoding: raw\nendian: big\n\n"
    )
    return "it ends before its last voxel"


BAD: dict[str, Callable[[Path], str]] = {
    each.__name__: each for each in (extreme, link, pipe, foreign_name, flipped, promising)
}


@pytest.mark.parametrize("make", BAD.values(), ids=BAD)
def test_it_is_listed_and_the_others_go_on(make, undrawn, model, scans, predict, out, capsys):
    expected = make(scans)
    assert predict(scans, "--report") == 3
    assert len(model.calls) == 3
    with (out.path / "summary.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["case"].startswith("bad") for row in rows] == [True, False, False, False]
    assert expected in rows[0]["error"]
    assert expected in " ".join(capsys.readouterr().out.split())
    assert expected in (out.path / "gallery.html").read_text(encoding="utf-8").replace("&#39;", "'")


def test_an_error_of_a_library_is_one_line_of_its_image(model, scans, predict, out, capsys):
    def fail(scan: Scan) -> None:
        if scan.name == "usual":
            raise np.linalg.LinAlgError("eigenvalues\ndid not converge")

    model.before = fail
    assert predict(scans) == 3
    text = " ".join(capsys.readouterr().out.split())
    assert "usual.nii.gz cannot be segmented (LinAlgError: eigenvalues did not converge)" in text
    assert len(model.calls) == 2


def test_what_is_no_image_is_said_once(model, scans, predict, out, caplog):
    caplog.set_level("INFO", "medmtl")
    for name in ("a.zip", "b.zip", "notes.txt", "._usual.nii.gz", ".DS_Store"):
        (scans / name).write_bytes(b"x")
    assert predict(scans) == 0
    assert [line for line in caplog.messages if "left out" in line] == [
        f"left out, for they are no images that can be read: 2 .zip, 1 .txt in {scans}"
    ]


def test_an_image_whose_name_is_not_utf_8_is_segmented_and_listed(undrawn, model, predict, out, tmp_path, capsys):
    save_scan(tmp_path / "in" / os.fsdecode(b"gr\xfc\xdfe.nii.gz"), 0)
    assert predict(tmp_path / "in", "--report") == 0
    with (out.path / "summary.csv").open(encoding="utf-8") as stream:
        (row,) = csv.DictReader(stream)
    assert row["input"] == f"{tmp_path}/in/gr\\udcfc\\udcdfe.nii.gz"
    assert predict(tmp_path / "in", "--report") == 0
    assert "1 of 1 images are finished already" in capsys.readouterr().out
    assert len(model.calls) == 1
