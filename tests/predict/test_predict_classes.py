"""`medmtl predict` with classes: masks, records, maps, DICOM SEG and pictures show each class; names as nnU-Net's."""

import csv
import json
import tracemalloc
from types import SimpleNamespace

import highdicom
import nibabel
import numpy as np
import pytest
from dicom_sample import write_series
from predict_sample import BRIGHT, GRID, MIDDLE, class_model, logits_of, save_classes, save_scan
from scipy.special import expit, softmax

from medmtl.io.inputs import input_of
from medmtl.io.reader import read
from medmtl.predict.case import _write_classes
from medmtl.predict.model import Model
from medmtl.predict.records import read_record

EXCLUSIVE = {"anterior": 4, "posterior": 300}
OVERLAPPING = {"whole": [1, 2], "core": 2}
VOXEL_ML = 8 / 1000


@pytest.fixture
def load(monkeypatch):
    """Make the run folder of this test hold a network with these classes."""

    def use(**tasks):
        built = class_model(**tasks)
        monkeypatch.setattr(Model, "load", lambda *_, **__: built)

    return use


@pytest.fixture
def scans(tmp_path):
    return tmp_path / "scans"


def row_of(out):
    with (out.path / "summary.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    return row


def expected_mask(voxels):
    return 4 * ((voxels >= MIDDLE) & (voxels < BRIGHT)) + 300 * (voxels >= BRIGHT)


def test_record_and_summary_hold_labels_and_volumes(load, scans, predict, out):
    load(Hippocampus={"classes": EXCLUSIVE})
    voxels = save_classes(scans / "a.nii.gz")
    assert predict(scans) == 0
    mask = nibabel.load(out.path / "a_mask.nii.gz")
    assert mask.get_data_dtype() == np.uint16
    np.testing.assert_array_equal(mask.affine, GRID)
    np.testing.assert_array_equal(np.asarray(mask.dataobj), expected_mask(voxels))
    record = out.record("a")
    counts = {name: int((expected_mask(voxels) == value).sum()) for name, value in EXCLUSIVE.items()}
    assert list(record["labels"].items()) == [("anterior", 4), ("posterior", 300)]
    assert record["volumes_ml"] == pytest.approx({name: count * VOXEL_ML for name, count in counts.items()})
    assert record["volume_ml"] == pytest.approx(sum(counts.values()) * VOXEL_ML)
    texts = [f"{name}={count * VOXEL_ML:.3f}" for name, count in counts.items()]
    assert row_of(out)["volumes_ml"] == "; ".join(texts) == "anterior=1.344; posterior=0.192"


def test_an_organ_has_neither_and_older_records_are_read(load, scans, predict, out):
    load(Organ={"organ": [4]})
    voxels = save_classes(scans / "a.nii.gz")
    assert predict(scans) == 0
    np.testing.assert_array_equal(nibabel.load(out.path / "a_mask.nii.gz").get_fdata(), voxels >= MIDDLE)
    record = out.record("a")
    assert (record.pop("labels"), record.pop("volumes_ml"), row_of(out)["volumes_ml"]) == ({}, {}, "")
    (out.path / "a.json").write_text(json.dumps(record))
    assert read_record(out.path, "a").labels == {}
    before = (out.path / "a_mask.nii.gz").stat().st_mtime_ns
    assert predict(scans) == 0
    assert (out.path / "a_mask.nii.gz").stat().st_mtime_ns == before


@pytest.mark.parametrize("classes", [EXCLUSIVE, OVERLAPPING], ids=["exclusive", "overlapping"])
def test_a_probability_map_has_a_volume_a_class(classes, load, scans, predict, out):
    load(Task={"classes": classes})
    voxels = save_classes(scans / "a.nii.gz")
    assert predict(scans, "--probability", "--entropy") == 0
    found = nibabel.load(out.path / "a_probability.nii.gz")
    logits = logits_of(voxels)
    expected = softmax(logits, axis=0)[1:] if classes is EXCLUSIVE else expit(logits[1:])
    assert found.shape == (12, 10, 8, 2)
    assert found.get_data_dtype() == np.float32
    np.testing.assert_array_equal(found.affine, GRID)
    np.testing.assert_allclose(found.get_fdata(), np.moveaxis(expected, 0, -1), atol=1e-5)
    assert bytes(found.header["descrip"]).strip(b"\0").decode().split("; ") == list(out.record("a")["labels"])
    assert nibabel.load(out.path / "a_entropy.nii.gz").shape == (12, 10, 8)


def test_names_that_a_nifti_header_has_no_room_for_are_in_the_record_which_it_names(load, scans, predict, out):
    names = {"a" * 40: 4, "b" * 37: 300}
    load(Task={"classes": names})
    save_classes(scans / "a.nii.gz")
    assert predict(scans, "--probability") == 0
    header = bytes(nibabel.load(out.path / "a_probability.nii.gz").header["descrip"]).strip(b"\0").decode()
    assert header == "; ".join(names)  # 79 bytes
    load(Task={"classes": {f"{name}b": value for name, value in names.items()}})
    assert predict(scans, "--probability", "--overwrite") == 0
    header = bytes(nibabel.load(out.path / "a_probability.nii.gz").header["descrip"]).strip(b"\0").decode()
    assert header == "volumes in the order of `labels` in the JSON record"
    assert list(out.record("a")["labels"]) == [f"{name}b" for name in names]
    assert not list(out.path.rglob("*.raw"))


def test_memory_for_a_probability_map_does_not_grow_with_the_number_of_classes(tmp_path):
    shape, count = (40, 50, 60), 20
    nibabel.save(nibabel.Nifti1Image(np.indices(shape, np.uint8)[0], GRID), tmp_path / "a.nii.gz")
    scan = read(input_of([tmp_path / "a.nii.gz"]))
    volumes = (np.full(shape, number, np.float32) for number in range(count))
    prediction = SimpleNamespace(
        classes=dict.fromkeys(map(str, range(count))), mask=np.zeros(shape), each_class=lambda: volumes
    )
    tracemalloc.start()
    path = _write_classes(tmp_path, scan, prediction)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5 * np.zeros(shape, np.float32).nbytes
    found = nibabel.load(path)
    assert found.shape == (*shape, count)
    np.testing.assert_array_equal(found.dataobj[0, 0, 0], np.arange(count))


def test_the_map_of_one_class_has_three_dimensions(load, scans, predict, out):
    load(Liver={"classes": {"liver": 6}})
    save_classes(scans / "a.nii.gz")
    assert predict(scans, "--probability") == 0
    assert nibabel.load(out.path / "a_probability.nii.gz").shape == (12, 10, 8)
    assert set(np.unique(nibabel.load(out.path / "a_mask.nii.gz").get_fdata())) == {0, 6}


@pytest.mark.parametrize(("task", "classes"), [("Parts", EXCLUSIVE), ("Regions", OVERLAPPING), ("Organ", None)])
def test_a_dicom_segmentation_has_a_segment_a_class(task, classes, load, predict, out, tmp_path):
    load(**{task: {"organ": [1]} if classes is None else {"classes": classes}})
    voxels = np.full((12, 10, 8), -100, np.int16)
    voxels[2:10, 2:8, 2:6], voxels[5:9, 3:6, 3:5] = 40, 160
    write_series(tmp_path / "series", voxels, np.diag([-2.0, -2.0, 2.0, 1.0]))
    assert predict(tmp_path / "series") == 0
    segmentation = highdicom.seg.segread(out.path / "series_mask.dcm")
    numbers = list(segmentation.segment_numbers)
    names = [segmentation.get_segment_description(number).segment_label for number in numbers]
    assert (numbers, names) == ([1, 2][: len(names)], list(classes or [task]))
    grid = nibabel.load(out.path / "series_mask.nii.gz")
    mask = np.asarray(grid.dataobj)
    first = (mask == 4) if classes is EXCLUSIVE else mask > 0
    for number, expected in zip(numbers, (first, mask == (300 if classes is EXCLUSIVE else 2)), strict=False):
        volume = segmentation.get_volume(segment_numbers=[number], combine_segments=True, relabel=True)
        inside = np.argwhere(volume.array)  # slices, rows, columns; slices without any segment are left out
        world = np.diag([-1, -1, 1]) @ volume.map_indices_to_reference(inside).T
        found = nibabel.affines.apply_affine(np.linalg.inv(grid.affine), world.T)
        np.testing.assert_allclose(found, found.round(), atol=1e-3)
        assert set(map(tuple, found.round().astype(int).tolist())) == set(map(tuple, np.argwhere(expected).tolist()))
        assert expected.any()


def test_the_gallery_names_classes_and_their_volumes(load, scans, predict, out):
    load(Hippocampus={"classes": EXCLUSIVE})
    save_classes(scans / "a.nii.gz")
    assert predict(scans, "--report") == 0
    page = (out.path / "gallery.html").read_text()
    assert "each class in a colour of its own" in page
    assert '<dt>posterior</dt><dd>0.19 ml <span class="quiet">(label 300)</span></dd>' in page


def test_with_an_empty_suffix_masks_have_the_names_that_nnunet_gives_them(load, scans, predict, out):
    load(Hippocampus={"classes": EXCLUSIVE})
    voxels = save_classes(scans / "torso_011_0000.nii.gz")
    save_classes(scans / "torso_2019.nii.gz")
    assert predict(scans, "--suffix", "") == 0
    names = {f"{name}{ending}" for name in ("torso_011", "torso_2019") for ending in (".nii.gz", ".json")}
    assert out.names() == {"summary.csv", *names}
    assert out.record("torso_011")["mask"] == "torso_011.nii.gz"
    np.testing.assert_array_equal(nibabel.load(out.path / "torso_011.nii.gz").get_fdata(), expected_mask(voxels))
    before = (out.path / "torso_2019.nii.gz").stat().st_mtime_ns
    assert predict(scans, "--suffix", "") == 0
    assert (out.path / "torso_2019.nii.gz").stat().st_mtime_ns == before
    # Another suffix names the same image otherwise, and leaves no second mask of it.
    assert predict(scans / "torso_2019.nii.gz", "--suffix", "_seg") == 0
    assert {name for name in out.names() if name.startswith("torso_2019")} == {
        "torso_2019.json",
        "torso_2019_seg.nii.gz",
    }


def test_a_channel_number_stays_where_it_tells_images_apart(load, scans, predict, out):
    load(Organ={"organ": [1]})
    for name in ("a_0000", "a_0001", "b_0000", "b", "c_0000"):
        save_classes(scans / f"{name}.nii.gz")
    assert predict(scans, "--suffix", "") == 0
    assert {name for name in out.names() if name.endswith(".nii.gz")} == {
        f"{name}.nii.gz" for name in ("a_0000", "a_0001", "b_0000", "b", "c")
    }


def test_no_image_label_or_other_output_is_replaced(load, scans, predict, out, capsys):
    load(Organ={"organ": [1]})
    image = scans / "a.nii.gz"
    save_classes(image)
    out.path.mkdir()
    label = save_scan(out.path / "a.nii.gz")
    before = label.read_bytes()
    assert predict(scans, "--suffix", "") == 1
    assert f"{label} was not written by an earlier command" in capsys.readouterr().err
    assert label.read_bytes() == before
    assert predict(scans) == 0  # NAME_mask is no label's name
    assert predict(scans, "--suffix", "", "--overwrite") == 0
    # A link in the output folder to an image elsewhere is an image, too.
    (out.path / "a.nii.gz").unlink()
    (out.path / "a.nii.gz").symlink_to(image)
    for flags in ([], ["--overwrite"]):
        assert predict(out.path / "a.nii.gz", "--suffix", "", *flags) == 1
        assert "choose another folder for --output" in capsys.readouterr().err
        assert (out.path / "a.nii.gz").is_symlink()
    # The map of one image, and the mask of another.
    save_classes(scans / "a_probability.nii.gz")
    assert predict(scans, "--suffix", "", "--probability") == 2
    assert "two outputs would be named a_probability" in capsys.readouterr().err
