"""`medmtl predict`: masks on the images' own grids, a verdict beside each, and exit codes that a script can rely on."""

import csv
import hashlib
import json
import os
import shutil
import threading
import weakref

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
from dicom_sample import as_localizer, write_series
from predict_sample import AFFINE, ALPHA, EMPTY, save_scan

from medmtl.predict import case as case_module
from medmtl.predict import run as run_module
from medmtl.version import __version__

DIGEST = hashlib.sha256(b"").hexdigest()  # of the checkpoint, an empty file
NAMES = ("usual", "ood", "odd_deep")


def rows_of(out):
    with (out.path / "summary.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_image_gets_a_mask_on_its_own_grid_and_a_verdict(model, scans, predict, out):
    assert predict(scans) == 0
    assert out.names() == {"summary.csv", *(f"{name}{kind}" for name in NAMES for kind in (".json", "_mask.nii.gz"))}
    for name, file in zip(NAMES, ("usual.nii.gz", "ood.nii.gz", "odd/deep.nii"), strict=True):
        image, mask = nibabel.load(scans / file), nibabel.load(out.path / f"{name}_mask.nii.gz")
        np.testing.assert_array_equal(mask.affine, image.affine)
        np.testing.assert_array_equal(mask.get_fdata(), image.get_fdata() > 100)
        record = out.record(name)
        assert record["input"] == str(scans / file)
        assert record["mask"] == record["files"]["mask"] == f"{name}_mask.nii.gz"
        assert record["in_distribution"] is {"usual": True, "ood": False, "odd_deep": None}[name]
        assert record["p_value"] == {"usual": 0.5, "ood": 0.01, "odd_deep": None}[name]
        assert record["scores"] == {"spectral": 0.4 if name == "ood" else 0.1, "entropy": None}
        assert (record["alpha"], record["nearest_task"], record["task"]) == (ALPHA, "LiverCT", "LiverCT")
        assert record["volume_ml"] == pytest.approx(4 * 4 * 3 * 1.5 * 2 * 3 / 1000)
        voxels = 12 * 10 * 8
        assert record["expected_volume_ml"] == pytest.approx((0.1 * voxels + 0.8 * 4 * 4 * 3) * 1.5 * 2 * 3 / 1000)
        assert record["model"] == {"name": "best.ckpt", "digest": DIGEST, "medmtl": __version__}
        assert record["seconds"].keys() == {"reading", "resampling", "inference", "verdict", "writing"}


def test_the_summary_has_the_values_of_the_records_ood_images_first(model, scans, predict, out):
    predict(scans)
    rows = rows_of(out)
    assert [row["case"] for row in rows] == ["ood", "odd_deep", "usual"]
    assert [row["verdict"] for row in rows] == ["out-of-distribution", "undecided", "in-distribution"]
    for row in rows:
        record = out.record(row["case"])
        for key in (
            "input",
            "in_distribution",
            "p_value",
            "ood_score",
            "nearest_task",
            "preprocessing",
            "volume_ml",
            "expected_volume_ml",
            "mask",
        ):
            assert row[key] == ("" if record[key] is None else str(record[key]))
        assert row["warnings"] == "; ".join(record["warnings"])
        assert (row["digest"], row["error"]) == (DIGEST, "")


def test_maps_are_written_where_they_are_asked_for(model, scans, predict, out):
    assert predict(scans / "usual.nii.gz", "--probability", "--entropy") == 0
    mask, probability, entropy = (
        nibabel.load(out.path / f"usual{kind}.nii.gz") for kind in ("_mask", "_probability", "_entropy")
    )
    for volume in (probability, entropy):
        np.testing.assert_array_equal(volume.affine, AFFINE)
        assert volume.get_data_dtype() == np.float32
    np.testing.assert_allclose(probability.get_fdata(), np.where(mask.get_fdata(), 0.9, 0.1), rtol=1e-6)
    np.testing.assert_allclose(entropy.get_fdata(), -0.9 * np.log(0.9) - 0.1 * np.log(0.1), rtol=1e-5)


@pytest.mark.parametrize(("on_ood", "code", "masked"), [("warn", 0, True), ("skip", 0, False), ("fail", 3, True)])
def test_what_happens_with_an_ood_image(on_ood, code, masked, model, scans, predict, out, capsys):
    assert predict(scans, "--on-ood", on_ood, "--probability") == code
    assert {"usual_mask.nii.gz", "odd_deep_mask.nii.gz", "usual_probability.nii.gz"} <= out.names()
    assert ({"ood_mask.nii.gz", "ood_probability.nii.gz"} <= out.names()) == masked
    assert out.record("ood")["mask"] == ("ood_mask.nii.gz" if masked else None)
    assert out.record("ood")["in_distribution"] is False
    assert "out-of-distribution: ood\n" in capsys.readouterr().out
    # The verdicts come from the records, and a mask that is no longer wanted is removed.
    assert predict(scans, "--on-ood", "fail") == 3
    assert predict(scans, "--on-ood", "skip") == 0
    assert not {"ood_mask.nii.gz", "ood_probability.nii.gz"} & out.names()


def test_an_image_that_cannot_be_read_does_not_stop_the_others(model, scans, predict, out, capsys):
    (scans / "broken.nii.gz").write_bytes(b"no image")
    assert predict(scans) == 3
    row, *others = rows_of(out)
    assert (row["case"], row["verdict"], len(others)) == ("broken", "", 3)
    assert str(scans / "broken.nii.gz") in row["error"]
    assert not any(name.startswith("broken") for name in out.names())
    captured = capsys.readouterr()
    assert f"broken failed: {row['error']}" in captured.out
    assert "Traceback" not in captured.out + captured.err
    assert predict(scans) == 3
    assert len(model.calls) == 3


def test_an_image_that_became_unreadable_keeps_no_earlier_verdict(model, scans, predict, out):
    predict(scans)
    (scans / "usual.nii.gz").write_bytes(b"no longer an image")
    assert predict(scans) == 3
    assert not {"usual.json", "usual_mask.nii.gz"} & out.names()


def test_what_is_finished_is_not_repeated(model, scans, predict, out, capsys):
    predict(scans)
    summary = (out.path / "summary.csv").read_bytes()
    assert predict(scans) == 0
    assert len(model.calls) == 3
    assert (out.path / "summary.csv").read_bytes() == summary
    assert "3 of 3 images are finished already" in capsys.readouterr().out
    save_scan(scans / "new.nii.gz")
    predict(scans)
    assert [name for name, *_ in model.calls[3:]] == ["new"]
    predict(scans, "--overwrite")
    assert len(model.calls) == 8


@pytest.mark.parametrize(
    ("change", "again"),
    [
        (lambda scans, out, model: save_scan(scans / "usual.nii.gz", 7), 1),
        (lambda scans, out, model: os.utime(scans / "usual.nii.gz", (0, 0)), 1),  # an image of before
        (lambda scans, out, model: (out.path / "usual_mask.nii.gz").unlink(), 1),
        (lambda scans, out, model: (out.path / "usual.json").unlink(), 1),
        (lambda scans, out, model: (out.path / "usual.json").write_text("{"), 1),
        (lambda scans, out, model: (out.path / "usual.json").write_text("[]"), 1),
        (lambda scans, out, model: (scans.parent / "run" / "checkpoints" / "best.ckpt").write_text("calibrated"), 3),
        (lambda scans, out, model: ["--alpha", "0.2"], 3),
        (lambda scans, out, model: ["--precision", "bf16"], 3),
        (lambda scans, out, model: ["--task", "KidneyT2"], 3),
        (lambda scans, out, model: ["--entropy"], 3),
        (lambda scans, out, model: ["--device", "cpu", "--window-batch", "2"], 0),
    ],
    ids=[
        "image",
        "earlier image",
        "mask",
        "verdict",
        "damage",
        "nonsense",
        "network",
        "alpha",
        "precision",
        "task",
        "map",
        "device",
    ],
)
def test_what_changed_is_repeated(change, again, model, scans, predict, out):
    predict(scans)
    flags = change(scans, out, model)
    assert predict(scans, *(flags if isinstance(flags, list) else [])) == 0
    assert len(model.calls) == 3 + again
    assert {f"{name}{kind}" for name in NAMES for kind in (".json", "_mask.nii.gz")} <= out.names()


def test_the_outputs_of_an_image_are_written_whole_or_not_at_all(model, scans, predict, out, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(case_module, "write_map", full)
    assert predict(scans, "--probability") == 1
    assert out.names() == set()
    assert list(out.path.iterdir()) == []
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"medmtl: error: {out.path} cannot be written to (No space left on device)")


def test_what_a_killed_command_left_is_replaced(model, scans, predict, out):
    (out.path / ".usual.partial").mkdir(parents=True)
    (out.path / ".usual.partial" / "half.nii.gz").touch()
    (out.path / "usual_mask.nii.gz").touch()  # moved in place, but its verdict was not written
    assert predict(scans / "usual.nii.gz") == 0
    assert out.names() == {"usual.json", "usual_mask.nii.gz", "summary.csv"}
    assert nibabel.load(out.path / "usual_mask.nii.gz").shape == (12, 10, 8)


def test_the_next_image_is_read_while_the_network_works_and_no_third_one_is_held(model, scans, predict, monkeypatch):
    for seed in range(6):
        save_scan(scans / f"more{seed}.nii.gz", seed)
    began = [threading.Event() for _ in range(9)]
    read, alive, most = run_module.read, [], []

    def spy(source, channels):
        began[len(alive)].set()
        scan = read(source, channels)
        alive.append(weakref.ref(scan))
        most.append(sum(each() is not None for each in alive))
        return scan

    def before(scan):
        place = len(model.calls)
        assert place == 8 or began[place + 1].wait(30)

    monkeypatch.setattr(run_module, "read", spy)
    model.before = before
    assert predict(scans) == 0
    assert len(most) == 9
    assert max(most) <= 2


def test_images_are_never_replaced_by_their_masks(model, scans, predict, out, capsys):
    out.path.mkdir()
    image = save_scan(out.path / "scan.nii.gz")
    before = image.read_bytes()
    for source in (image, out.path):
        assert predict(source) == 1
        assert image.read_bytes() == before
    assert "choose another folder for --output" in capsys.readouterr().err
    assert model.calls == []


def test_masks_within_the_input_folder_are_no_images(model, scans, predict, out, tmp_path):
    shutil.copytree(scans, tmp_path / "all" / "scans")
    shutil.rmtree(scans)
    for _ in range(2):
        assert predict(tmp_path, "--probability") == 0
    assert sorted(name for name, *_ in model.calls) == ["all_scans_odd_deep", "all_scans_ood", "all_scans_usual"]


def test_a_folder_that_cannot_be_written_to_is_reported_before_anything_is_computed(model, scans, predict, out, capsys):
    out.path.touch()
    assert predict(scans) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"medmtl: error: {out.path} cannot be written to")
    assert model.calls == []


def test_a_dicom_series_gets_a_dicom_mask_too_and_is_finished_like_a_file(model, predict, out, tmp_path):
    voxels = np.full((12, 10, 8), 20, np.int16)
    voxels[3:7, 4:8, 2:5] = 150
    affine = np.diag([-1.5, -2.0, 3.0, 1.0])
    write_series(tmp_path / "series", voxels, affine)
    assert predict(tmp_path / "series") == 0
    record = out.record("series")
    assert record["files"] == {"mask": "series_mask.nii.gz", "dicom_seg": "series_mask.dcm"}
    mask = nibabel.load(out.path / "series_mask.nii.gz")
    placed = nibabel.as_closest_canonical(mask).get_fdata(), nibabel.as_closest_canonical(mask).affine
    truth = nibabel.as_closest_canonical(nibabel.Nifti1Image((voxels > 100).astype(np.uint8), affine))
    np.testing.assert_array_equal(placed[0], truth.get_fdata())
    np.testing.assert_allclose(placed[1], truth.affine, atol=1e-4)
    assert pydicom.dcmread(out.path / "series_mask.dcm").Modality == "SEG"
    assert model.calls == [("series", None, "CT")]
    assert predict(tmp_path / "series") == 0
    assert len(model.calls) == 1
    next((tmp_path / "series").iterdir()).touch()
    assert predict(tmp_path / "series") == 0
    assert len(model.calls) == 2


def test_a_localizer_in_a_study_is_no_failure(model, predict, tmp_path, caplog):
    voxels = np.full((12, 10, 8), 20, np.int16)
    voxels[3:7, 4:8, 2:5] = 150
    write_series(tmp_path / "study", voxels, np.eye(4), series="volume", number=2)
    write_series(tmp_path / "study", voxels[..., 3:4], np.eye(4), series="scout", number=1, change=as_localizer)
    with caplog.at_level("INFO", "medmtl"):
        assert predict(tmp_path / "study") == 0
    assert [name for name, *_ in model.calls] == ["study_2"]
    assert f"left out, for it is a localizer: series 1 of {tmp_path / 'study'}" in caplog.messages


def test_channels_are_one_image_and_a_change_of_any_is_a_change(model, predict, out, tmp_path, capsys):
    for task in model.tasks.values():
        task.channel = [0, 1]
    scans = tmp_path / "scans"
    for number in range(2):
        save_scan(scans / f"p1_{number:04d}.nii.gz", number)
        save_scan(scans / f"p2_{number:04d}.nii.gz", number)
    lone = save_scan(scans / "lone.nii.gz")
    assert predict(scans) == 3
    assert [name for name, *_ in model.calls] == ["p1", "p2"]
    assert out.record("p1")["volume_ml"] == pytest.approx(4 * 4 * 3 * 1.5 * 2 * 3 / 1000)
    mask = nibabel.load(out.path / "p1_mask.nii.gz")
    np.testing.assert_array_equal(mask.affine, AFFINE)
    assert mask.shape == (12, 10, 8)
    (row,) = [row for row in rows_of(out) if row["error"]]
    assert (row["case"], row["error"].startswith(f"{lone} comes with channel 0, where")) == ("lone", True)
    lone.unlink()
    assert predict(scans) == 0
    assert len(model.calls) == 2
    # The second channel of one image becomes older and as long as before: its content has changed all the same.
    path = scans / "p2_0001.nii.gz"
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns - 10**12))
    assert predict(scans) == 0
    assert [name for name, *_ in model.calls[2:]] == ["p2"]
    assert predict(scans, "--volume", "all") == 2
    assert "--volume selects one of the volumes that the network stacks" in capsys.readouterr().err
    model.tasks["KidneyT2"].channel = [1, 0]
    assert predict(scans) == 2
    assert "the tasks of best.ckpt stack different channels: name the task" in capsys.readouterr().err
    assert predict(scans, "--task", "KidneyT2") == 0


def test_a_stack_of_series_gets_a_dicom_mask_of_the_first_that_is_stacked(model, predict, out, tmp_path):
    for task in model.tasks.values():
        task.channel = [1, 0]
    voxels = np.full((12, 10, 8), 20, np.int16)
    voxels[3:7, 4:8, 2:5] = 150
    for name, modality in (("pet", "PT"), ("ct", "CT")):
        write_series(tmp_path / name, voxels, np.diag([-1.5, -2.0, 3.0, 1.0]), modality, series=name)
    (tmp_path / "list.json").write_text(json.dumps([{"image": ["pet", "ct"], "name": "both"}]))
    assert predict(tmp_path / "list.json") == 0
    assert model.calls == [("both", None, None)]
    segmentation = pydicom.dcmread(out.path / "both_mask.dcm")
    (source,) = segmentation.ReferencedSeriesSequence
    assert source.SeriesInstanceUID == pydicom.dcmread(next((tmp_path / "ct").iterdir())).SeriesInstanceUID
    assert predict(tmp_path / "list.json") == 0
    assert len(model.calls) == 1


def test_a_mask_has_the_format_of_its_image(model, predict, out, tmp_path):
    image = SimpleITK.GetImageFromArray(np.pad(np.full((4, 4, 4), 150, np.float32), 3))
    image.SetSpacing((1.5, 2, 3))
    image.SetOrigin((10, -20, 30))
    SimpleITK.WriteImage(image, tmp_path / "scan.nrrd")
    assert predict(tmp_path / "scan.nrrd", "--probability") == 0
    assert out.names() == {"scan.json", "scan_mask.nrrd", "scan_probability.nrrd", "summary.csv"}
    mask = SimpleITK.ReadImage(out.path / "scan_mask.nrrd")
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(mask), SimpleITK.GetArrayFromImage(image) > 100)
    assert (mask.GetSpacing(), mask.GetOrigin()) == (image.GetSpacing(), image.GetOrigin())


def test_records_of_the_earlier_schema_are_read(model, scans, predict, out, tmp_path, capsys):
    predict(scans)
    for name in NAMES:
        record = out.record(name)
        assert record.pop("schema") == 2
        record["recipe"], record["distance"] = record.pop("preprocessing"), record.pop("ood_score")
        (out.path / f"{name}.json").write_text(json.dumps(record))
    assert predict(scans) == 0
    assert len(model.calls) == 3
    assert [(row["preprocessing"], row["ood_score"]) for row in rows_of(out)] == [
        ("3 x 3 x 3 mm, -160 to 240 HU", score) for score in ("0.4", "0.1", "0.1")
    ]
    other = save_scan(tmp_path / "elsewhere" / "usual.nii.gz", 3)
    assert predict(other) == 1
    assert "is about another image" in capsys.readouterr().err


def test_the_verdict_on_another_image_is_not_replaced(model, scans, predict, out, tmp_path, capsys):
    predict(scans / "usual.nii.gz")
    other = save_scan(tmp_path / "elsewhere" / "usual.nii.gz", 3)
    assert predict(other) == 1
    assert str(scans / "usual.nii.gz") in capsys.readouterr().err
    assert out.record("usual")["input"] == str(scans / "usual.nii.gz")
    assert predict(other, "--overwrite") == 0
    assert out.record("usual")["input"] == str(other)


def test_task_and_modality_of_a_list_count_unless_flags_say_otherwise(model, scans, predict, tmp_path, capsys):
    listed = [
        {"image": "scans/usual.nii.gz", "task": "KidneyT2"},
        {"image": "scans/ood.nii.gz", "modality": "CT"},
    ]
    (tmp_path / "list.json").write_text(json.dumps(listed))
    assert predict(tmp_path / "list.json") == 0
    assert model.calls == [("usual", "KidneyT2", None), ("ood", None, "CT")]
    assert predict(tmp_path / "list.json", "--task", "LiverCT", "--modality", "MR") == 0
    assert model.calls[2:] == [("usual", "LiverCT", "MR"), ("ood", "LiverCT", "MR")]
    listed[0]["task"] = "Spleen"
    (tmp_path / "list.json").write_text(json.dumps(listed))
    assert predict(tmp_path / "list.json") == 2
    assert predict(scans, "--task", "Heart") == 2
    for line, task in zip(capsys.readouterr().err.splitlines(), ("Spleen", "Heart"), strict=True):
        assert task in line
        assert "LiverCT, KidneyT2" in line


def test_warnings_reach_the_record_and_the_terminal(model, scans, predict, out, capsys):
    save_scan(scans / "empty.nii.gz", organ=False)
    predict(scans)
    assert out.record("empty")["warnings"] == [EMPTY]
    assert out.record("usual")["warnings"] == []
    assert capsys.readouterr().out.count(f"  {EMPTY}\n") == 1


def test_the_gallery_shows_every_image(model, scans, predict, out, capsys):
    assert predict(scans, "--report", "--on-ood", "skip") == 0
    assert {f"figures/{name}.png" for name in NAMES} <= out.names()
    assert f"gallery: {out.path / 'gallery.html'}" in capsys.readouterr().out.replace("\n", " ")
    page = (out.path / "gallery.html").read_text()
    assert all(page.count(f"<h3>{name}</h3>") == 1 for name in NAMES)
    assert "Trained on digital phantoms, not patients" in page
    assert "out-of-distribution, no mask written" in page
    predict(scans, "--report", "--on-ood", "skip")
    assert len(model.calls) == 3
    assert (out.path / "gallery.html").read_text() == page


def test_pictures_in_another_convention_are_drawn_again(model, scans, predict, out, monkeypatch):
    predict(scans, "--report")
    before = (out.path / "figures" / "usual.png").read_bytes()
    monkeypatch.setenv("MEDMTL_CONVENTION", "neurological")
    predict(scans)  # nothing is drawn
    assert len(model.calls) == 3
    predict(scans, "--report")
    assert len(model.calls) == 6
    assert (out.path / "figures" / "usual.png").read_bytes() != before
    assert "Neurological convention" in (out.path / "gallery.html").read_text()


@pytest.mark.parametrize("lost", ["figures/usual.png", "figures/usual.slices.json"])
def test_what_a_page_shows_and_is_lost_is_written_again(model, scans, predict, out, lost):
    predict(scans, "--report")
    (out.path / lost).unlink()
    assert predict(scans, "--report") == 0
    assert len(model.calls) == 4
    assert lost in out.names()


def test_a_link_to_itself_is_an_image_that_cannot_be_read(model, scans, predict, out, capsys):
    (scans / "loop.nii.gz").symlink_to("loop.nii.gz")
    assert predict(scans) == 3
    assert [row["case"] for row in rows_of(out)][:1] == ["loop"]
    assert len(model.calls) == 3
    (scans / "around").symlink_to("around")
    assert predict(scans / "around") == 1
    assert capsys.readouterr().err.count("Traceback") == 0
