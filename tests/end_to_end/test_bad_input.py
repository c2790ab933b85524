"""Bad input ends before training starts, in one line that names the thing, without a traceback."""

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import yaml

from medmtl.cli import main


@pytest.fixture
def config(tiny: Path, phantoms: Path, workplace: Path) -> Path:
    """The tiny configuration with a liver task of its own to spoil."""
    shutil.copytree(phantoms / "LiverCT", "LiverCT")
    content = yaml.safe_load(tiny.read_text())
    content["data"]["tasks"]["LiverCT"]["root"] = "LiverCT"
    Path("spoilt.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return Path("spoilt.yaml")


def set_in(config: Path, *keys: str, value: object) -> None:
    content = yaml.safe_load(config.read_text())
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    config.write_text(yaml.safe_dump(content, sort_keys=False))


def rewrite(path: Path, change: object) -> None:
    image = nibabel.load(path)
    voxels, affine = change(np.asanyarray(image.dataobj).copy(), image.affine.copy())
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)


def fails(config: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(["fit", "--config", str(config), *flags])
    captured = capsys.readouterr().err
    assert exit_.value.code in (1, 2)
    assert "Traceback" not in captured
    lines = [line for line in captured.splitlines() if line.startswith("medmtl: error:")]
    assert len(lines) == 1
    assert not Path("runs").exists()
    return lines[0]


def first(kind: str) -> Path:
    return sorted(Path("LiverCT", kind).iterdir())[0]


def case_of(path: Path) -> str:
    return path.name.removesuffix(".nii.gz")


def test_a_missing_file(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = first("imagesTr")
    path.unlink()
    line = fails(config, capsys)
    assert "LiverCT" in line
    assert path.name in line
    assert "missing" in line


def test_a_label_of_another_shape(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = first("labelsTr")
    rewrite(path, lambda voxels, affine: (voxels[:-1], affine))
    line = fails(config, capsys)
    assert "LiverCT" in line
    assert case_of(path) in line
    assert "55 x 44 x 48 voxels, its image 56 x 44 x 48" in line


def test_a_label_of_another_affine(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = first("labelsTr")
    rewrite(path, lambda voxels, affine: (voxels, affine + np.eye(4) * 0.1))
    line = fails(config, capsys)
    assert case_of(path) in line
    assert "affine" in line


def test_an_image_that_is_not_finite(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = first("imagesTr")

    def spoil(voxels: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        voxels = voxels.astype(np.float32)
        voxels[0, 0, 0] = np.nan
        return voxels, affine

    rewrite(path, spoil)
    line = fails(config, capsys)
    assert case_of(path) in line
    assert "finite" in line


def test_an_unknown_label_value(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = first("labelsTr")
    rewrite(path, lambda voxels, affine: (np.where(voxels == 1, 7, voxels).astype(np.uint8), affine))
    line = fails(config, capsys)
    assert case_of(path) in line
    assert "7" in line


def test_a_task_without_foreground(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in Path("LiverCT/labelsTr").iterdir():
        rewrite(path, lambda voxels, affine: (np.zeros_like(voxels), affine))
    line = fails(config, capsys)
    assert "LiverCT" in line
    assert "no case has foreground" in line


@pytest.mark.usefixtures("laid_out")
def test_one_case_without_foreground_is_only_warned_of(
    config: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["fit", "--config", str(config), "--run", "e", "--trainer.max_steps=1", "--data.batches=1"])
    case = json.loads(Path("e/splits.json").read_text())["LiverCT"]["test"][0]
    rewrite(Path("LiverCT/labelsTr") / f"{case}.nii.gz", lambda voxels, affine: (np.zeros_like(voxels), affine))
    main(["fit", "--config", str(config), "--run", "f", "--trainer.max_steps=1", "--data.batches=1"])
    assert f"task LiverCT, case {case}: no foreground" in caplog.text
    main(["test", "--run", "f"])
    assert json.loads(Path("f/report/report.json").read_text())["tasks"]["LiverCT"]["dice"]["undefined"] == 1


def test_an_unknown_key(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_in(config, "data", "tasks", "LiverCT", "spaceing", value=[1, 1, 1])
    assert "spaceing" in fails(config, capsys)


def test_an_unknown_section(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_in(config, "modle", value={"loss": 1})
    assert "modle" in fails(config, capsys)


def test_an_unknown_flag(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "batchsize" in fails(config, capsys, "--data.batchsize=3")


def test_a_wrong_modality(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_in(config, "data", "tasks", "LiverCT", "modality", value="XRAY")
    line = fails(config, capsys)
    assert "XRAY" in line
    assert "CT" in line


def test_a_missing_data_root(config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEDMTL_NOWHERE", raising=False)
    set_in(config, "data", "tasks", "LiverCT", "root", value="${MEDMTL_NOWHERE}/LiverCT")
    line = fails(config, capsys)
    assert "MEDMTL_NOWHERE" in line
    assert "not set" in line


def test_a_folder_that_does_not_exist(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_in(config, "data", "tasks", "LiverCT", "root", value="no/such/folder")
    assert "no/such/folder" in fails(config, capsys)


def test_a_class_that_does_not_exist(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_in(config, "model", "network", "class_path", value="monai.networks.nets.NoSuchNet")
    assert "NoSuchNet" in fails(config, capsys)


def test_a_configuration_that_is_nowhere(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = fails(Path("nosuch.yaml"), capsys)
    assert "nosuch.yaml" in line
    assert "multitask.yaml" in line


def test_a_file_that_is_no_checkpoint(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("x.ckpt").write_text("no checkpoint")
    with pytest.raises(SystemExit) as exit_:
        main(["test", "--ckpt_path", "x.ckpt"])
    assert exit_.value.code == 1
    assert "x.ckpt is not a checkpoint" in capsys.readouterr().err
