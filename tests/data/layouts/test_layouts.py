"""Every layout keeps the contract, is recognised, and gives the same cases, voxels and batches as any other."""

import csv
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from numpy.typing import NDArray

from medmtl.data.case import Case, LabelFile
from medmtl.data.datamodule import MultiTaskData
from medmtl.data.layouts import (
    MSD,
    Bids,
    Corpus,
    FileList,
    Folders,
    Layout,
    LooseImages,
    NNUNet,
    check_layout,
    recognise,
)
from medmtl.data.reading import load_image, load_label
from medmtl.data.task import OODImages, Task
from medmtl.data.task_cases import ood_cases, task_cases
from medmtl.errors import DataError

Volumes = Mapping[str, tuple[NDArray[Any], NDArray[Any]]]
LIVER, SPLEEN = 1, 2
AFFINE = np.array([[-1.5, 0, 0, 10], [0, 0, 2, -20], [0, 1.25, 0, 5], [0, 0, 0, 1]])


def save(path: Path, voxels: NDArray[Any]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, AFFINE), path)
    return path.name


def write_msd(root: Path, volumes: Volumes) -> Layout:
    for case, (image, label) in volumes.items():
        save(root / f"imagesTr/{case}.nii.gz", image)
        save(root / f"labelsTr/{case}.nii.gz", label)
    pairs = [{part: f"./{folder}/{case}.nii.gz" for part, folder in (("image", "imagesTr"), ("label", "labelsTr"))}
             for case in volumes]  # fmt: skip
    labels = {"0": "background", "1": "liver", "2": "spleen"}
    (root / "dataset.json").write_text(json.dumps({"modality": {"0": "CT"}, "labels": labels, "training": pairs}))
    return MSD()


def write_nnunet(root: Path, volumes: Volumes) -> Layout:
    for case, (image, label) in volumes.items():
        save(root / f"imagesTr/{case}_0000.nii.gz", image)
        save(root / f"labelsTr/{case}.nii.gz", label)
    labels = {"background": 0, "liver": LIVER, "spleen": SPLEEN}
    described = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": len(volumes), "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(described))
    return NNUNet()


def write_csv(root: Path, volumes: Volumes) -> Layout:
    rows = [{"image": save(root / f"{case}.nii.gz", image), "label": save(root / f"{case}_truth.nii.gz", label)}
            for case, (image, label) in volumes.items()]  # fmt: skip
    with (root / "cases.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["image", "label"])
        writer.writeheader()
        writer.writerows(rows)
    return FileList(organs={"liver": LIVER, "spleen": SPLEEN})


def write_masks_in_a_list(root: Path, volumes: Volumes) -> Layout:
    rows = []
    for case, (image, label) in volumes.items():
        row = {"image": save(root / f"{case}.nii.gz", image)}
        for organ, value in (("liver", LIVER), ("spleen", SPLEEN)):
            row[f"label_{organ}"] = save(root / f"{case}_{organ}.nii.gz", (label == value) * np.uint8(255))
        rows.append(row)
    (root / "cases.json").write_text(json.dumps(rows))
    return FileList()


def write_pairs(root: Path, volumes: Volumes) -> Layout:
    for case, (image, label) in volumes.items():
        save(root / f"images/{case}.nii.gz", image)
        save(root / f"labels/{case}.nii", label)
    return Folders(organs={"liver": LIVER, "spleen": SPLEEN})


def write_masks_in_folders(root: Path, volumes: Volumes) -> Layout:
    for case, (image, label) in volumes.items():
        save(root / case / "ct.nii.gz", image)
        for organ, value in (("liver", LIVER), ("spleen", SPLEEN)):
            save(root / case / f"segmentations/{organ}.nii.gz", (label == value).astype(np.float32))
    masks = {organ: f"{{case}}/segmentations/{organ}" for organ in ("liver", "spleen")}
    return Folders("{case}/ct", masks)


def write_bids(root: Path, volumes: Volumes) -> Layout:
    for case, (image, label) in volumes.items():
        save(root / f"{case}/anat/{case}_T1w.nii.gz", image)
        save(root / f"derivatives/manual/{case}/anat/{case}_desc-manual_dseg.nii.gz", label)
    (root / "dataset_description.json").write_text(json.dumps({"Name": "Test", "BIDSVersion": "1.10.0"}))
    (root / "derivatives/manual/desc-manual_dseg.tsv").write_text("index\tname\n0\tbackground\n1\tliver\n2\tspleen\n")
    return Bids()


def write_masks_in_bids(root: Path, volumes: Volumes) -> Layout:
    for case, (image, label) in volumes.items():
        save(root / f"{case}/anat/{case}_T1w.nii.gz", image)
        for organ, value in (("liver", LIVER), ("spleen", SPLEEN)):
            save(root / f"{case}/anat/{case}_label-{organ}_mask.nii.gz", (label == value).astype(np.uint8))
    (root / "dataset_description.json").write_text(json.dumps({"Name": "Test", "BIDSVersion": "1.10.0"}))
    return Bids()


WRITERS = (write_msd, write_nnunet, write_csv, write_masks_in_a_list, write_pairs, write_masks_in_folders, write_bids,
           write_masks_in_bids)  # fmt: skip
NAMES = ("sub-a1", "sub-a2", "sub-b1", "sub-b2", "sub-c1", "sub-c2")


@pytest.fixture
def volumes() -> Volumes:
    rng = np.random.default_rng(0)
    found = {}
    for case in NAMES:
        label = np.zeros((9, 8, 7), np.uint8)
        label[2:5, 2:6, 1:4], label[6:8, 4:7, 3:6] = LIVER, SPLEEN
        found[case] = (rng.normal(100, 20, label.shape).astype(np.float32), label)
    return found


def task_at(root: Path, layout: Layout | None, organ: list[int | str]) -> Task:
    return Task(str(root), "CT", (1.5, 2, 1.25), organ, layout=layout)


@pytest.mark.parametrize("write", WRITERS)
def test_every_layout_meets_the_contract(write: Callable[..., Layout], volumes: Volumes, tmp_path: Path) -> None:
    check_layout(write(tmp_path, volumes), tmp_path)


@pytest.mark.parametrize("write", WRITERS)
def test_every_layout_gives_the_same_voxels(write: Callable[..., Layout], volumes: Volumes, tmp_path: Path) -> None:
    layout = write(tmp_path, volumes)
    for organ, values in ((["liver"], {LIVER}), (["spleen"], {SPLEEN}), ([LIVER, "spleen"], {LIVER, SPLEEN})):
        found = task_cases("T", task_at(tmp_path, layout, organ))
        assert found.classes.foreground == values
        assert [case.name for case in found.cases] == list(NAMES)
        for case in found.cases:
            image, label = volumes[case.name]
            loaded = load_image(case)
            np.testing.assert_array_equal(loaded[0].numpy(), image)
            np.testing.assert_allclose(loaded.affine.numpy(), AFFINE, atol=1e-6)
            np.testing.assert_array_equal(
                load_label(case, found.classes, loaded)[0].numpy(), np.isin(label, list(values))
            )


@pytest.mark.parametrize("write", WRITERS)
def test_a_layout_is_recognised_unless_it_needs_patterns(
    write: Callable[..., Layout], volumes: Volumes, tmp_path: Path
) -> None:
    named = write(tmp_path, volumes)
    assert type(recognise(tmp_path)) is (LooseImages if write is write_masks_in_folders else type(named))


@pytest.mark.parametrize("write", WRITERS)
def test_every_layout_serves_as_ood_images(write: Callable[..., Layout], volumes: Volumes, tmp_path: Path) -> None:
    layout = write(tmp_path, volumes)
    cases = ood_cases("Other", OODImages(str(tmp_path), layout=layout))
    assert [case.name for case in cases] == list(NAMES)
    assert not any(case.labels for case in cases)


def batches(root: Path, layout: Layout | None, organ: list[int | str], **options: Any) -> list[dict[str, torch.Tensor]]:
    task = Task(str(root), "MR", (1, 1, 1), organ, layout=layout)
    data = MultiTaskData({"T": task}, (8, 8, 8), batches=4, seed=3, **options)
    data.setup("fit")
    return list(data.train_dataloader())


def assert_same(one: list[dict[str, torch.Tensor]], other: list[dict[str, torch.Tensor]]) -> None:
    assert len(one) == len(other) == 4
    assert any(batch["label"].any() for batch in one)
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a["image"], b["image"])
        assert torch.equal(a["label"], b["label"])


@pytest.mark.parametrize("write", WRITERS[1:])
def test_every_layout_gives_the_training_batches_of_the_decathlon_s(
    write: Callable[..., Layout], volumes: Volumes, tmp_path: Path
) -> None:
    layout = write(tmp_path / "Other", volumes)
    write_msd(tmp_path / "MSD", volumes)
    assert_same(batches(tmp_path / "MSD", None, [SPLEEN]), batches(tmp_path / "Other", layout, ["spleen"]))


@pytest.mark.real_data
def test_real_cases_as_nnunet_and_as_decathlon_give_the_same_training_batches(real_data: Path, tmp_path: Path) -> None:
    source, chosen = real_data / "HippocampusMR", 8
    dataset = json.loads((source / "dataset.json").read_text())
    dataset["training"] = dataset["training"][:chosen]
    msd, nnunet = tmp_path / "Hippocampus", tmp_path / "Dataset004_Hippocampus"
    for root in (msd, nnunet):
        for folder in ("imagesTr", "labelsTr"):
            (root / folder).mkdir(parents=True)
    for entry in dataset["training"]:
        for part, folder in (("image", "imagesTr"), ("label", "labelsTr")):
            name = Path(entry[part]).name
            (msd / folder / name).symlink_to(source / folder / name)
            channel = "_0000" if part == "image" else ""
            (nnunet / folder / name.replace(".nii.gz", f"{channel}.nii.gz")).symlink_to(source / folder / name)
    (msd / "dataset.json").write_text(json.dumps(dataset))
    described = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "anterior": 1, "posterior": 2, "hippocampus": [1, 2]},
        "numTraining": chosen,
        "file_ending": ".nii.gz",
    }
    (nnunet / "dataset.json").write_text(json.dumps(described))
    assert type(recognise(nnunet)) is NNUNet
    assert type(recognise(msd)) is MSD
    assert_same(batches(msd, None, [1, 2]), batches(nnunet, None, ["hippocampus"]))


def test_an_organ_that_no_label_has_is_named(volumes: Volumes, tmp_path: Path) -> None:
    write_nnunet(tmp_path, volumes)
    with pytest.raises(
        DataError, match=re.escape(f"task T: organ kidney is not among the labels liver, spleen of {tmp_path}")
    ):
        task_cases("T", task_at(tmp_path, None, ["kidney"]))
    with pytest.raises(DataError, match=r"task T: organ \[7\] is not among the labels \[0, 1, 2\]"):
        task_cases("T", task_at(tmp_path, None, [1, 7]))


class Broken(Layout):
    """Reads what it is given."""

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus

    def read(self, owner: str, root: Path) -> Corpus:
        if not any(root.iterdir()):
            raise DataError(f"{owner}: {root} is empty", fix="fill it")
        return self.corpus


@pytest.mark.parametrize(
    ("change", "promise"),
    [
        ({"labels": ()}, "labelled case"),
        ({"name": "a/b"}, "file names"),
        ({"name": ""}, "file names"),
        ({"patient": ""}, "patient"),
        ({"images": ()}, "an image"),
        ({"images": (Path("absent.nii"),)}, "exist"),
        ({"images": (Path("../outside.nii"),)}, "within the folder"),
        ({"channels": (1,)}, "channels"),
        ({"labels": (LabelFile(Path("l.nii"), 3),)}, "masks stand for"),
    ],
)
def test_the_contract_finds_what_a_layout_gets_wrong(tmp_path: Path, change: dict[str, Any], promise: str) -> None:
    root = tmp_path / "root"
    for path in (root / "i.nii", root / "l.nii", tmp_path / "outside.nii"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    good = {"name": "a", "patient": "p", "images": (Path("i.nii"),), "labels": (LabelFile(Path("l.nii")),)}

    def layout(fields: dict[str, Any]) -> Broken:
        fields = {**fields, "images": tuple(root / path for path in fields["images"])}
        fields["labels"] = tuple(LabelFile(root / label.path, label.value) for label in fields["labels"])
        return Broken(Corpus((Case(**fields),), {"liver": (1,)}))

    check_layout(layout(good), root)
    with pytest.raises(AssertionError, match=f"Broken breaks its contract: .*{promise}"):
        check_layout(layout(good | change), root)


@pytest.mark.parametrize(
    ("corpus", "promise"),
    [
        ({"organs": {"liver": (0,)}}, "above 0"),
        ({"organs": {"liver": (1,)}, "ignore": 1}, "ignores neither"),
    ],
)
def test_the_contract_finds_what_is_wrong_with_labels(tmp_path: Path, corpus: dict[str, Any], promise: str) -> None:
    (tmp_path / "i.nii").write_text("")
    case = Case("a", "a", (tmp_path / "i.nii",), (LabelFile(tmp_path / "i.nii"),))
    with pytest.raises(AssertionError, match=promise):
        check_layout(Broken(Corpus((case,), **corpus)), tmp_path)
    with pytest.raises(AssertionError, match="name of its own"):
        check_layout(Broken(Corpus((case, case))), tmp_path)


def test_a_task_names_a_layout_by_its_short_name_in_yaml(tmp_path: Path) -> None:
    layout = {"class_path": "Folders", "init_args": {"images": "scans/{case}", "labels": "masks/{case}"}}
    task = {"root": str(tmp_path), "modality": "MR", "organ": [1], "spacing": [1, 1, 1], "layout": layout}
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--tasks", type=dict[str, Task])
    built = parser.instantiate(parser.parse_object({"tasks": {"Own": task}})).tasks["Own"].layout
    assert isinstance(built, Folders)
    assert (built.images, built.labels) == (["scans/{case}"], "masks/{case}")
