"""`medmtl data import`: the block is a task as a person would have written it, and trains."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import yaml

from medmtl.cli import main
from medmtl.data.case import patient_of
from medmtl.data.layouts.layout import Corpus
from medmtl.data.task import Task
from medmtl.data_tools.block import guess_modality, patient_pattern, task_block, working_spacing
from medmtl.errors import ConfigError, DataError

WriteTask = Callable[..., Path]
IMAGE = np.random.default_rng(0).integers(0, 900, (8, 9, 10)).astype(np.int16)
LABEL = (IMAGE > 700).astype(np.uint8)


def parsed(block: str) -> tuple[str, dict[str, Any]]:
    ((name, task),) = yaml.safe_load("data:\n  tasks:\n" + block)["data"]["tasks"].items()
    Task(**task)
    return name, task


def test_a_block_says_what_the_dataset_says(write_task: WriteTask, monkeypatch: pytest.MonkeyPatch) -> None:
    affine = np.diag([0.75, 0.75, 2.5, 1])[[0, 2, 1, 3]]  # the third axis of the array runs to the front
    root = write_task({"a": (IMAGE, LABEL), "b": (IMAGE, LABEL), "c": (IMAGE, None)}, "Task09_Spleen", affine)
    described = json.loads((root / "dataset.json").read_text()) | {"modality": {"0": "CT"}}
    (root / "dataset.json").write_text(json.dumps(described))
    monkeypatch.delenv("MEDMTL_DATA", raising=False)
    name, task = parsed(task_block(root))
    assert name == "SpleenCT"
    assert task == {"root": str(root), "modality": "CT", "organ": [1], "spacing": [0.75, 2.5, 0.75]}
    assert "2 labelled cases, 1 without" in task_block(root)
    assert "1 organ" in task_block(root)
    monkeypatch.setenv("MEDMTL_DATA", str(root.parent))
    assert parsed(task_block(root, name="Milz", modality="other"))[1]["root"] == "${MEDMTL_DATA}/Task09_Spleen"
    assert parsed(task_block(root, name="Milz"))[0] == "Milz"


def test_the_spacing_is_in_millimetres_whatever_unit_the_headers_name(write_task: WriteTask) -> None:
    root = write_task({"a": (IMAGE, LABEL)}, affine=np.diag([750, 2500, 750, 1]))
    path = root / "imagesTr" / "a.nii.gz"
    image = nib.load(path)
    image.header.set_xyzt_units("micron")
    nib.save(image, path)
    assert parsed(task_block(root, modality="CT"))[1]["spacing"] == [0.75, 2.5, 0.75]


def test_an_undeclared_modality_gets_a_comment(write_task: WriteTask) -> None:
    root = write_task({"a": (IMAGE, LABEL)}, labels=("background", "liver", "tumour"))
    assert "# not declared by the dataset" in task_block(root)
    assert parsed(task_block(root))[1]["modality"] == "other"
    assert parsed(task_block(root))[1]["classes"] == {"liver": 1, "tumour": 2}
    assert "an output each; `organ: [1, 2]` merges them" in task_block(root)
    assert "merged into one: 1 liver, 2 tumour" in task_block(root, organ=["liver", "tumour"])
    assert parsed(task_block(root, organ=["tumour"]))[1]["organ"] == [2]
    assert parsed(task_block(root, organ=["1"]))[1]["organ"] == [1]
    with pytest.raises(ConfigError, match="--organ spleen: use a label value, or one of: liver, tumour"):
        task_block(root, organ=["spleen"])
    with pytest.raises(ConfigError, match="--modality MRI"):
        task_block(root, modality="MRI")


def test_an_nnunet_folder_with_regions_and_an_ignore_label(tmp_path: Path) -> None:
    root = tmp_path / "Dataset007_BrainTumour"
    for folder, suffixes in (("imagesTr", ("_0000", "_0001")), ("labelsTr", ("",))):
        (root / folder).mkdir(parents=True)
        for suffix in suffixes:
            image = SimpleITK.GetImageFromArray(LABEL)
            image.SetSpacing((1.5, 1.5, 4.0))
            SimpleITK.WriteImage(image, str(root / folder / f"a{suffix}.nrrd"))
    described = {
        "channel_names": {"0": "T1", "1": "FLAIR"},
        "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "ignore": 4},
        "numTraining": 1,
        "file_ending": ".nrrd",
        "regions_class_order": [1, 2],
    }
    (root / "dataset.json").write_text(json.dumps(described))
    name, task = parsed(task_block(root))
    assert name == "BrainTumourMR"
    assert task["classes"] == {"whole": [1, 2, 3], "core": [2, 3]}
    assert task["channel"] == 0
    assert task["spacing"] == [1.5, 1.5, 4]
    assert "0 T1, 1 FLAIR; a list stacks several" in task_block(root)
    assert parsed(task_block(root, organ=["core"]))[1]["organ"] == [2, 3]
    (root / "dataset.json").write_text(json.dumps(described | {"regions_class_order": [1, 3]}))
    assert parsed(task_block(root))[1]["classes"] == {"whole": [1, 2, 3], "core": [3, 2]}


def test_an_image_that_cannot_be_read_is_named(write_task: WriteTask) -> None:
    root = write_task({"a": (IMAGE, LABEL)})
    (root / "imagesTr" / "a.nii.gz").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"case a: .*a\.nii\.gz cannot be read"):
        task_block(root)


def test_a_folder_without_labels_is_no_task(write_task: WriteTask) -> None:
    with pytest.raises(DataError, match="has no labels: read as MSD, no case has one"):
        task_block(write_task({"a": (IMAGE, None)}))


@pytest.mark.parametrize(
    ("channels", "modality"),
    [
        (("CT",), "CT"),
        (("MRI",), "MR"),
        (("FLAIR", "T1w"), "MR"),
        (("t1gd",), "MR"),
        (("T2", "ADC"), "MR"),
        (("PET", "CT"), "PET"),
        (("zscore",), "other"),
        (("noNorm",), "other"),
        ((), "other"),
    ],
)
def test_the_modality_is_that_of_the_first_channel(channels: tuple[str, ...], modality: str) -> None:
    assert guess_modality(Corpus((), channels=channels, modality=" ".join(channels))) == modality


@pytest.mark.parametrize(
    ("spacing", "extent", "expected"),
    [
        ([1, 1, 1], [35, 51, 35], [1, 1, 1]),
        ([0.625, 0.625, 3.6], [200, 200, 72], [0.62, 0.62, 3.6]),  # anisotropic, and small enough
        ([0.8, 0.8, 5], [400, 400, 450], [1.9, 1.9, 5]),  # only the fine axes are coarser
        ([0.5, 0.5, 0.6], [500, 500, 600], [3.3, 3.3, 3.3]),  # then all
        ([1, 0.5, 2], [400, 400, 400], [2.5, 2.5, 2.5]),
    ],
)
def test_the_working_spacing_keeps_a_volume_small(
    spacing: list[float], extent: list[float], expected: list[float]
) -> None:
    found = working_spacing(spacing, extent)
    assert found == pytest.approx(expected, rel=0.03)
    assert all(coarse >= 0.97 * fine for coarse, fine in zip(found, spacing, strict=True))
    assert math.prod(np.divide(extent, found)) <= 1.1 * 4e6


def test_a_pattern_is_proposed_where_names_repeat() -> None:
    names = [f"patient{number:03d}_frame{frame:02d}" for number in range(5) for frame in (1, 12)]
    pattern = patient_pattern(names)
    assert [patient_of("Heart", name, pattern) for name in names] == [name.split("_")[0] for name in names]
    for others in (
        [f"hippocampus_{number:03d}" for number in range(9)],  # no number before the last part
        [f"case_{number:05d}_0" for number in range(9)],  # nothing repeats
        [f"study2_{number}" for number in range(9)],  # all the same
        [*names, "odd"],
        [],
    ):
        assert patient_pattern(others) is None


@pytest.mark.usefixtures("undrawn")
def test_the_block_trains(write_task: WriteTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    volumes = {f"case{number}": (IMAGE + number, LABEL) for number in range(5)}
    block = task_block(write_task(volumes, labels=("background", "speckle")))
    config = yaml.safe_load((Path(__file__).parents[2] / "configs" / "multitask.yaml").read_text())
    config["data"] |= {"tasks": dict([parsed(block)]), "ood": None, "patch_size": [32, 32, 32], "batches": 2}
    Path("speckle.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    flags = ("--trainer.max_epochs=1", "--trainer.enable_progress_bar=false", "--wandb.mode=disabled")
    main(["fit", "--config", "speckle.yaml", *flags])
    assert list(Path("runs/speckle/checkpoints").glob("*.ckpt"))


def test_the_command_prints_the_block_alone(write_task: WriteTask, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_task({"a": (IMAGE, LABEL)})
    main(["data", "import", str(root), "--name", "Liver", "--modality", "CT", "--organ", "organ"])
    assert parsed(capsys.readouterr().out)[0] == "Liver"


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "modality", "spacing"),
    [("HippocampusMR", "MR", [1, 1, 1]), ("SarcomaCT", "CT", [4, 4, 4]), ("SarcomaPET", "PET", [4, 4, 4])],
)
def test_real_corpora(real_data: Path, name: str, modality: str, spacing: list[float]) -> None:
    found, task = parsed(task_block(real_data / name))
    assert (found, task["modality"], task["spacing"]) == (name, modality, spacing)
    assert task["root"] == "${MEDMTL_DATA}/" + name
    assert "patient" not in task
