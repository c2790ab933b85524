"""`medmtl data check`: the table, the three files, the copies and the exit code."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

from medmtl.cli import main
from medmtl.data.case import Case, LabelFile
from medmtl.data.check import check_task
from medmtl.results.dataset import SEVERITIES

WriteTask = Callable[..., Path]
RNG = np.random.default_rng(0)
AFFINE = np.diag([1.0, 2, 3, 1])


def volumes(count: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    label = np.zeros((6, 7, 8), np.uint8)
    label[2:4, 2:5, 2:5] = 1
    return {f"case{number}": (RNG.integers(0, 99, label.shape).astype(np.int16), label) for number in range(count)}


def check(*argv: str | Path) -> int:
    try:
        main(["data", "check", *map(str, argv)])
    except SystemExit as exit_:
        return int(exit_.code or 0)
    return 0


def content(folder: Path) -> dict:
    def refuse(constant: str) -> float:
        raise ValueError(constant)

    return json.loads((folder / "check.json").read_text(), parse_constant=refuse)


def findings(folder: Path) -> list[tuple[str, str, str]]:
    return [(each["severity"], each["rule"], each["case"]) for each in content(folder)["findings"]]


def test_a_good_dataset_passes(write_task: WriteTask, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = volumes(3)
    root = write_task(
        {name: (image, np.roll(label, number)) for number, (name, (image, label)) in enumerate(given.items())}
    )
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert check(root, "--output", tmp_path / "out", "--jobs", "1") == 0
    printed = capsys.readouterr().out
    assert "3 cases, all can be used: no findings." in printed
    assert str(tmp_path / "out" / "check.html") in printed.replace("\n", "")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["check.csv", "check.html", "check.json"]
    with (tmp_path / "out" / "check.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["case"] for row in rows] == list(given)
    assert rows[1]["channel 0 maximum"] == str(float(given["case1"][0].max()))
    assert float(rows[0]["label 1 (ml)"]) == pytest.approx(18e-3)
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_an_unusable_case_gives_exit_code_3_and_the_others_are_read(write_task: WriteTask, tmp_path: Path) -> None:
    root = write_task(volumes(3) | {"test": (volumes(1)["case0"][0], None)})
    (root / "imagesTr" / "case1.nii.gz").write_bytes(b"no image")
    (root / "labelsTr" / "case2.nii.gz").unlink()
    assert check(root, "--output", tmp_path / "out", "--jobs", "1") == 3
    assert findings(tmp_path / "out") == [("error", "unreadable", "case1"), ("error", "unreadable", "case2")]
    cases = {case["case"]: case for case in content(tmp_path / "out")["cases"]}
    assert cases["case1"]["shape"] == []
    assert cases["case0"]["volumes_ml"] == pytest.approx({"1": 18e-3})
    assert cases["test"]["part"] == "test"


def test_warnings_and_notes_alone_give_exit_code_0(write_task: WriteTask, tmp_path: Path) -> None:
    given = volumes(10)
    given["case3"] = (given["case3"][0], given["case3"][1] * 0)
    given["copy"] = given["case5"]
    root = write_task(given | {"mirrored": (given["case6"][0][::-1], None)})
    assert check(root, "--output", tmp_path / "out", "--jobs", "1") == 0
    expected = {("warning", "empty", "case3"), ("warning", "duplicate", "copy"), ("warning", "leak", "mirrored")}
    found = findings(tmp_path / "out")
    assert expected <= set(found)
    assert [severity for severity, *_ in found] == sorted((severity for severity, *_ in found), key=SEVERITIES.index)


def test_a_dataset_without_any_foreground_is_an_error(write_task: WriteTask, tmp_path: Path) -> None:
    root = write_task({name: (image, label * 0) for name, (image, label) in volumes(2).items()})
    assert check(root, "--output", tmp_path / "out", "--jobs", "1") == 3
    assert findings(tmp_path / "out")[0] == ("error", "empty", "")


def test_processes_change_nothing(write_task: WriteTask, tmp_path: Path) -> None:
    root = write_task(volumes(5))
    (root / "imagesTr" / "case1.nii.gz").write_bytes(b"no image")
    for jobs in ("1", "2"):
        assert check(root, "--output", tmp_path / jobs, "--jobs", jobs) == 3
    for name in ("check.json", "check.csv", "check.html"):
        assert (tmp_path / "1" / name).read_text() == (tmp_path / "2" / name).read_text()


def test_fix_affine_writes_copies_that_training_accepts(write_task: WriteTask, tmp_path: Path) -> None:
    given = volumes(3)
    root = write_task(given, affine=AFFINE)
    shifted, turned = (root / "labelsTr" / f"case{number}.nii.gz" for number in (0, 1))
    moved = AFFINE.copy()
    moved[0, 3] = 7
    nib.save(nib.Nifti1Image(given["case0"][1], moved), shifted)
    flip = np.array([[1, 0, 0, 0], [0, -1, 0, 6], [0, 0, 1, 0], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(given["case1"][1][:, ::-1], AFFINE @ flip), turned)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    out = tmp_path / "fixed"
    assert check(root, "--output", tmp_path / "out", "--jobs", "1", "--fix-affine", out) == 3
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in out.rglob("*") if path.is_file()) == ["case0.nii.gz", "case1.nii.gz"]
    for name in ("case0", "case1"):
        copy, image = out / "labelsTr" / f"{name}.nii.gz", root / "imagesTr" / f"{name}.nii.gz"
        check_task("Fixed", [Case(name, name, (image,), (LabelFile(copy),))], [1], {0, 1})
        written = nib.load(copy)
        assert np.array_equal(np.asanyarray(written.dataobj), given[name][1])
        assert written.get_data_dtype() == np.uint8
        for affine in (written.get_sform(), written.get_qform()):
            assert np.allclose(affine, AFFINE)


def test_a_label_of_another_unit_is_put_into_millimetres(write_task: WriteTask, tmp_path: Path) -> None:
    root = write_task(volumes(1), affine=AFFINE)
    image, label = (root / folder / "case0.nii.gz" for folder in ("imagesTr", "labelsTr"))
    in_microns = nib.load(label)
    in_microns.header.set_xyzt_units("micron")
    nib.save(in_microns, label)
    out = tmp_path / "fixed"
    assert check(root, "--output", tmp_path / "out", "--jobs", "1", "--fix-affine", out) == 3
    copy = out / "labelsTr" / "case0.nii.gz"
    check_task("Fixed", [Case("case0", "case0", (image,), (LabelFile(copy),))], [1], {0, 1})


def test_copies_never_go_into_the_dataset(
    write_task: WriteTask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_task(volumes(1))
    assert check(root, "--output", tmp_path / "out", "--jobs", "1", "--fix-affine", root / "fixed") == 1
    assert "write the copies elsewhere" in capsys.readouterr().err
    assert not (root / "fixed").exists()


def test_patients_and_folds_of_an_nnunet_folder(tmp_path: Path) -> None:
    root, given = tmp_path / "Dataset004_Heart", volumes(4)
    for number, (image, label) in enumerate(given.values()):
        name = f"pat{number // 2}_{number % 2}"
        for folder, suffix, voxels in (("imagesTr", "_0000", image), ("labelsTr", "", label)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(voxels, np.eye(4)), root / folder / f"{name}{suffix}.nii.gz")
    described = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "heart": 1},
        "numTraining": 4,
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(described))
    folds = [{"train": ["pat0_0", "pat1_0"], "val": ["pat0_1", "pat1_1"]}]
    (root / "splits_final.json").write_text(json.dumps(folds))
    label_twins = {("warning", "duplicate", name) for name in ("pat0_1", "pat1_0", "pat1_1")}  # all labels are alike
    assert check(root, "--output", tmp_path / "plain", "--jobs", "1") == 0
    assert set(findings(tmp_path / "plain")) == label_twins
    assert check(root, "--output", tmp_path / "patients", "--jobs", "1", "--patient", r"pat\d+") == 0
    assert set(findings(tmp_path / "patients")) == label_twins | {("warning", "leak", "")}


def test_a_configuration_is_checked_as_a_whole(
    write_task: WriteTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEDMTL_CACHE", str(tmp_path))
    write_task(volumes(2), "phantoms-v1/VentricleT1")
    task = {"root": "phantom:VentricleT1", "modality": "MR", "organ": [1], "spacing": [3, 3, 3]}
    tasks = {"VentricleT1": task, "Again": task | {"patient": r"\d"}}
    Path("two.yaml").write_text(yaml.safe_dump({"data": {"tasks": tasks}}, sort_keys=False))
    assert check("--config", "two.yaml", "--jobs", "1") == 0
    assert "Digital phantoms, not patients" in capsys.readouterr().out
    page = Path("data-check/two/check.html").read_text()
    assert "Digital phantoms, not patients" in page
    assert "the same image as case0 of VentricleT1, but another patient" in page


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        ([], "give a folder, or --config FILE"),
        (["x", "--config", "y"], "one folder or one configuration"),
        (["--config", "y", "--layout", "MSD"], "--layout is for a folder"),
        (["x", "--layout", "Nope"], "--layout Nope"),
        (["x", "--jobs", "0"], "--jobs=0"),
        (["--config", "none.yaml"], "none.yaml"),
    ],
)
def test_wrong_usage_is_exit_code_2(argv: list[str], word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(*argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert word in line


def test_a_folder_that_does_not_exist_is_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(tmp_path / "none") == 1
    assert "is not a folder" in capsys.readouterr().err


def test_a_folder_of_images_alone_can_serve_as_ood(
    save_volume: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, (image, _) in volumes(2).items():
        save_volume(f"Scans/site/{name}.nii.gz", image)
    assert check(tmp_path / "Scans", "--output", tmp_path / "out", "--jobs", "1") == 0
    assert "2 images without labels, usable as data.ood only: 1 note." in capsys.readouterr().out
    ((severity, rule, case),) = findings(tmp_path / "out")
    assert (severity, rule, case) == ("note", "no-labels", "")
    message = content(tmp_path / "out")["findings"][0]["message"]
    assert "MSD (dataset.json)" in message
    assert "the folder holds 2 images and the folders site" in message


def test_labels_that_no_layout_pairs_are_a_warning_and_a_layout_by_hand_reads_them(
    save_volume: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, (image, label) in volumes(3).items():
        save_volume(f"Own/scans/{name}.nii.gz", image)
        save_volume(f"Own/masks/{name}_mask.nii.gz", label)
    layout = '{class_path: Folders, init_args: {images: "scans/{case}", labels: "masks/{case}_mask"}}'
    assert check(tmp_path / "Own", "--output", tmp_path / "out", "--jobs", "1") == 0
    assert ("warning", "no-labels", "") in findings(tmp_path / "out")
    assert "3 of them have names like labels (masks/case0_mask.nii.gz)" in (tmp_path / "out/check.html").read_text()
    assert check(tmp_path / "Own", "--layout", layout, "--output", tmp_path / "named", "--jobs", "1") == 0
    assert not {rule for _, rule, _ in findings(tmp_path / "named")} & {"no-labels"}
    assert [case["part"] for case in content(tmp_path / "named")["cases"]] == ["training"] * 3
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["data", "import", str(tmp_path / "Own")])
    assert "has no labels: none of these layouts was found" in capsys.readouterr().err
    main(["data", "import", str(tmp_path / "Own"), "--layout", layout, "--organ", "1"])
    (block,) = yaml.safe_load(capsys.readouterr().out).values()
    assert block["layout"] == yaml.safe_load(layout)
    tasks = {"data": {"tasks": {"Own": block, "None": block | {"layout": {"class_path": "LooseImages"}}}}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(tasks))
    assert check("--config", tmp_path / "own.yaml", "--output", tmp_path / "tasks", "--jobs", "1") == 3
    assert ("error", "no-labels", "") in findings(tmp_path / "tasks")


@pytest.mark.real_data
def test_real_corpora_can_be_used_and_their_copies_are_found(real_data: Path, tmp_path: Path) -> None:
    root = tmp_path / "Sarcoma"
    shutil.copytree(real_data / "SarcomaPET", root, copy_function=shutil.copyfile)
    described = json.loads((root / "dataset.json").read_text())
    described["training"] = described["training"][:10]
    image = nib.load(root / described["training"][4]["image"])
    (root / "imagesTs").mkdir(exist_ok=True)
    copy = image.as_reoriented(nib.orientations.axcodes2ornt("PSL"))
    nib.save(nib.Nifti1Image(np.asanyarray(copy.dataobj).astype(np.float32), np.eye(4)), root / "imagesTs/new.nii.gz")
    described["test"] = ["./imagesTs/new.nii.gz"]
    (root / "dataset.json").write_text(json.dumps(described))
    assert check(root, "--output", tmp_path / "out", "--jobs", "1") == 0
    leaks = [each for each in content(tmp_path / "out")["findings"] if each["rule"] == "leak"]
    (leak,) = leaks
    assert leak["case"] == "new"
    assert Path(described["training"][4]["image"]).name.removesuffix(".nii.gz") in leak["message"]
