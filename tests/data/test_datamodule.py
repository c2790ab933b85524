"""MultiTaskData: the union that patches are drawn from, the volumes that are scored, and no leak between parts."""

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from medmtl.data.datamodule import MultiTaskData
from medmtl.data.layouts.folders import Folders
from medmtl.data.loaders import Union
from medmtl.data.preprocessing import Preprocessing
from medmtl.data.sampling import BalancedSampler, Draw
from medmtl.data.splits import PARTS, write_splits
from medmtl.data.task import OODImages, Task
from medmtl.errors import ConfigError, DataError
from medmtl.losses.masked import UNKNOWN

WriteTask = Callable[..., Path]
CT, T2, PET = Preprocessing((8, 8, 8), (-160, 240)), Preprocessing((8, 8, 8), None), Preprocessing((9, 9, 9), None)


def phantom_tasks() -> dict[str, Task]:
    return {
        "Liver": Task("phantom:LiverCT", "CT", (8, 8, 8), [1]),
        "Kidney": Task("phantom:KidneyT2", "MR", (8, 8, 8), [1, 2]),
        "Heart": Task("phantom:HeartPET", "PET", (9, 9, 9), [1]),
    }


def phantom_data(**options: Any) -> MultiTaskData:
    options = {"patch_size": (16, 16, 16), "batch_size": 3, "batches": 4, **options}
    return MultiTaskData(phantom_tasks(), **options)


@pytest.fixture
def data(phantoms: Path) -> MultiTaskData:
    found = phantom_data(held_out=["Heart"], ood={"Other": OODImages("phantom:OtherPhantom")}, val=0.3, test=0.3)
    found.setup("fit")
    return found


def batches(data: MultiTaskData, epoch: int) -> list[dict[str, torch.Tensor]]:
    loader = data.train_dataloader()
    assert isinstance(loader.sampler, BalancedSampler)
    loader.sampler.set_epoch(epoch)
    return list(loader)


def same(one: list[Mapping[str, torch.Tensor]], other: list[Mapping[str, torch.Tensor]]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a[key], b[key]) for a, b in zip(one, other, strict=True) for key in ("image", "label")
    )


def tiny_task(write_task: WriteTask, name: str, cases: list[str], **options: Any) -> Task:
    rng = np.random.default_rng(0)
    label = np.zeros((6, 6, 6), np.uint8)
    label[2:4, 2:4, 2:4] = 1
    root = write_task({case: (rng.normal(size=label.shape).astype(np.float32), label) for case in cases}, name=name)
    return Task(str(root), "MR", (1, 1, 1), [1], **options)


def test_batches_are_patches_of_the_trained_tasks(data: MultiTaskData) -> None:
    found = batches(data, 0)
    assert len(found) == 4
    for batch in found:
        assert batch["image"].shape == batch["label"].shape == (3, 1, 16, 16, 16)
        assert batch["image"].dtype == torch.float32
        assert torch.isfinite(batch["image"]).all()
        assert set(batch["label"].unique().tolist()) <= {0, 1}
    assert any(batch["label"].any() for batch in found)


def test_an_epoch_is_the_same_in_a_new_process_and_another_epoch_is_not(data: MultiTaskData, phantoms: Path) -> None:
    first = batches(data, 1)
    resumed = phantom_data(held_out=["Heart"], val=0.3, test=0.3)
    resumed.setup("fit")
    assert same(batches(resumed, 1), first)
    assert not same(batches(resumed, 2), first)


def test_the_number_of_workers_does_not_change_the_patches(data: MultiTaskData) -> None:
    alone = batches(data, 0)
    data.workers = 2
    assert same(batches(data, 0), alone)


def test_the_seed_of_the_run_decides_the_patches(data: MultiTaskData) -> None:
    first = batches(data, 0)
    data.seed = 1
    assert not same(batches(data, 0), first)


def test_a_patch_does_not_depend_on_what_was_drawn_before(data: MultiTaskData) -> None:
    caches = {name: data.training_cache(name) for name in data.trained}
    labels = {name: data.labels(name) for name in caches}
    busy, fresh = (Union(caches, (16, 16, 16), foreground=0.7, labels=labels) for _ in range(2))
    for seed in range(5):
        busy[Draw("Kidney", 0, seed)]
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)
    assert same([busy[Draw("Liver", 0, 11)]], [fresh[Draw("Liver", 0, 11)]])
    assert not same([busy[Draw("Liver", 0, 11)]], [fresh[Draw("Liver", 0, 12)]])


def test_drawing_patches_leaves_the_cache_as_it_was(data: MultiTaskData) -> None:
    cache = data.training_cache("Liver")
    before = copy.deepcopy(cache[0])
    union = Union({"Liver": cache}, (16, 16, 16), foreground=0.7, labels={"Liver": data.labels("Liver")})
    for seed in range(50):
        union[Draw("Liver", 0, seed)]
    after = cache[0]
    assert list(after) == list(before)
    for key in ("image", "label"):
        assert after[key].dtype == before[key].dtype
        assert after[key].numpy().tobytes() == before[key].numpy().tobytes()


def test_the_cache_of_a_task_is_built_once_and_holds_its_training_cases(data: MultiTaskData) -> None:
    assert data.training_cache("Liver") is data.training_cache("Liver")
    assert [item["case"] for item in data.training_cache("Liver")] == data.splits["Liver"]["train"]


def test_parts_are_disjoint_and_complete(data: MultiTaskData) -> None:
    for name in data.tasks:
        parts = [data.splits[name][part] for part in PARTS]
        assert sorted(case for part in parts for case in part) == [
            f"phantom_{data.tasks[name].root.removeprefix('phantom:')}_{number:03d}" for number in (1, 2, 3)
        ]
        assert [len(part) for part in parts] == [1, 1, 1]
        for part in PARTS:
            assert [case.name for case in data.cases(name, part)] == data.splits[name][part]


def test_a_patient_is_on_one_side_in_all_tasks_that_share_them(write_task: WriteTask) -> None:
    patients = [f"STS_{number:03d}" for number in range(12)]
    tasks = {
        name: tiny_task(write_task, name, [f"{patient}_{name}_{scan}" for patient in people for scan in scans],
                        patient=r"STS_\d+")
        for name, people, scans in (("CT", patients[:9], "a"), ("MR", patients[3:], "ab"), ("PET", patients, "a"))
    }  # fmt: skip
    sides = []
    for seed in range(5):
        data = MultiTaskData(tasks, patch_size=(4, 4, 4), split_seed=seed)
        data.setup("test")
        sides.append({})
        for parts in data.splits.values():
            for part, cases in parts.items():
                for case in cases:
                    assert sides[-1].setdefault(case[:7], part) == part
        assert sorted(sides[-1]) == patients
    assert any(side != sides[0] for side in sides)


def test_a_held_out_task_is_not_trained_on(data: MultiTaskData) -> None:
    assert list(data.trained) == ["Liver", "Kidney"]
    assert data.preprocessings == [CT, T2]
    assert {scan["dataset"] for scan in data.val_dataloader()} == {"Liver", "Kidney"}
    assert {scan["dataset"] for scan in data.calibration_dataloader()} == {"Liver", "Kidney"}


def test_tasks_with_one_preprocessing_share_it(phantoms: Path) -> None:
    tasks = {**phantom_tasks(), "Ventricle": Task("phantom:VentricleT1", "MR", (8.0, 8.0, 8.0), [1])}
    assert MultiTaskData(tasks, (16, 16, 16)).preprocessings == [CT, T2, PET]


def test_validation_scans_are_prepared_as_their_task_says(data: MultiTaskData) -> None:
    scans = list(data.val_dataloader())
    assert [(scan["dataset"], scan["case"]) for scan in scans] == [
        (name, case) for name in ("Liver", "Kidney") for case in data.splits[name]["val"]
    ]
    for scan, preprocessing in zip(scans, (CT, T2), strict=True):
        assert scan["own"] == preprocessing
        assert list(scan["images"]) == [preprocessing]
        assert scan["label"].shape == scan["native"].shape
        assert scan["label"].any()


def test_scans_that_set_the_threshold_have_their_own_preprocessing_and_scans_of_the_test_have_all(
    data: MultiTaskData,
) -> None:
    calibration, test = list(data.calibration_dataloader()), list(data.test_dataloader())
    assert [scan["case"] for scan in calibration] == [
        case for name in ("Liver", "Kidney") for case in data.splits[name]["val"]
    ]
    assert all(list(scan["images"]) == [scan["own"]] for scan in calibration)
    assert all(list(scan["images"]) == [CT, T2] for scan in test)


def test_the_test_scans_are_those_of_all_tasks_and_the_ood_images(data: MultiTaskData) -> None:
    scans = list(data.test_dataloader())
    counts = {dataset: sum(scan["dataset"] == dataset for scan in scans) for dataset in (*data.tasks, *data.ood)}
    assert counts == {"Liver": 1, "Kidney": 1, "Heart": 1, "Other": len(scans) - 3}
    assert counts["Other"] >= 10
    for scan in scans:
        known = scan["dataset"] in data.trained
        assert scan["own"] == (data.tasks[scan["dataset"]].preprocessing if known else None)
        assert (scan["label"] is not None) == known
    tested = {scan["case"] for scan in scans}
    seen = {case for name in data.tasks for part in ("train", "val") for case in data.splits[name][part]}
    assert not tested & seen


def test_the_split_of_a_checkpoint_is_used_whatever_the_configuration_says(phantoms: Path) -> None:
    trained, later = phantom_data(split_seed=0), phantom_data(split_seed=7)
    for data in (trained, later):
        data.setup("fit")
    assert trained.splits != later.splits
    state = json.loads(json.dumps(trained.state_dict()))
    later.load_state_dict(state)
    assert later.splits == trained.splits
    assert [scan["case"] for scan in later.test_dataloader()] == [
        case for name in later.tasks for case in trained.splits[name]["test"]
    ]


def test_a_task_added_after_training_keeps_the_patients_of_the_checkpoint_on_their_side(write_task: WriteTask) -> None:
    patients = [f"P{number:02d}" for number in range(20)]
    tasks = {
        "CT": tiny_task(write_task, "CT", patients),
        "MR": tiny_task(write_task, "MR", [*patients[5:], "Q1", "Q2"]),
    }
    trained = MultiTaskData({"CT": tasks["CT"]}, (4, 4, 4))
    trained.setup("fit")
    later = MultiTaskData(tasks, (4, 4, 4), held_out=["MR"])
    later.setup("test")
    assert later.splits["CT"] != trained.splits["CT"]
    later.load_state_dict(trained.state_dict())
    assert later.splits["CT"] == trained.splits["CT"]
    assert sorted(case for cases in later.splits["MR"].values() for case in cases) == [*patients[5:], "Q1", "Q2"]
    for part in PARTS:
        known = set(later.splits["MR"][part]) & set(patients)
        assert known == set(trained.splits["CT"][part]) & set(patients[5:])


def test_the_split_of_another_run_can_be_given(data: MultiTaskData, tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    write_splits(path, data.splits)
    again = MultiTaskData({"Liver": phantom_tasks()["Liver"]}, (16, 16, 16), splits=str(path), split_seed=7)
    again.setup("fit")
    assert again.splits == {"Liver": data.splits["Liver"]}
    assert [case.name for case in again.cases("Liver", "test")] == data.splits["Liver"]["test"]


def test_cases_that_a_split_file_leaves_out_are_used_nowhere(data: MultiTaskData, tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    fewer = {"Liver": {**data.splits["Liver"], "test": []}}
    write_splits(path, fewer)
    again = MultiTaskData({"Liver": phantom_tasks()["Liver"]}, (16, 16, 16), splits=str(path))
    again.setup("fit")
    assert again.splits == fewer
    assert len(again.listed("Liver")) == sum(map(len, data.splits["Liver"].values()))
    assert list(again.test_dataloader()) == []


def test_a_test_case_of_the_checkpoint_that_is_gone_is_named(write_task: WriteTask) -> None:
    names = [f"case_{number}" for number in range(6)]
    trained = MultiTaskData({"Liver": tiny_task(write_task, "Liver", names)}, (4, 4, 4))
    trained.setup("fit")
    (gone, *_) = trained.splits["Liver"]["test"]
    moved = tiny_task(write_task, "Moved", [name for name in names if name != gone])
    later = MultiTaskData({"Liver": moved}, (4, 4, 4))
    later.setup("test")
    with pytest.raises(DataError) as error:
        later.load_state_dict(trained.state_dict())
    assert all(word in str(error.value) for word in ("task Liver", f"case {gone}", str(moved.root)))


def test_a_broken_case_is_named_before_anything_is_computed(write_task: WriteTask) -> None:
    task = tiny_task(write_task, "Liver", ["a", "b", "c", "d"])
    (Path(task.root) / "labelsTr" / "c.nii.gz").unlink()
    with pytest.raises(DataError, match=r"task Liver, case c: .*c\.nii\.gz is missing"):
        MultiTaskData({"Liver": task}, (4, 4, 4)).setup("fit")


def test_a_broken_test_case_is_named_before_the_test(write_task: WriteTask) -> None:
    task = tiny_task(write_task, "Liver", ["a", "b", "c", "d"])
    data = MultiTaskData({"Liver": task}, (4, 4, 4))
    data.setup("test")
    (broken, *_) = data.splits["Liver"]["test"]
    (Path(task.root) / "labelsTr" / f"{broken}.nii.gz").unlink()
    with pytest.raises(DataError, match=rf"task Liver, case {broken}: .*{broken}\.nii\.gz is missing"):
        data.test_dataloader()


def test_a_calibration_needs_the_validation_cases_alone_and_names_a_broken_one(write_task: WriteTask) -> None:
    names = [f"case_{number}" for number in range(6)]
    task = tiny_task(write_task, "Liver", names)
    trained = MultiTaskData({"Liver": task}, (4, 4, 4))
    trained.setup("fit")
    kept, tested = trained.splits["Liver"]["val"], trained.splits["Liver"]["test"]
    moved = MultiTaskData({"Liver": tiny_task(write_task, "Moved", sorted(set(names) - set(tested)))}, (4, 4, 4))
    moved.setup("calibrate")
    moved.load_state_dict(trained.state_dict())
    assert [scan["case"] for scan in moved.val_dataloader()] == kept
    (Path(task.root) / "labelsTr" / f"{kept[0]}.nii.gz").unlink()
    broken = MultiTaskData({"Liver": task}, (4, 4, 4))
    broken.setup("calibrate")
    broken.load_state_dict(trained.state_dict())
    with pytest.raises(DataError, match=rf"task Liver, case {kept[0]}: .*{kept[0]}\.nii\.gz is missing"):
        broken.val_dataloader()


def test_a_broken_ood_image_is_named_before_the_test(write_task: WriteTask) -> None:
    task = tiny_task(write_task, "Liver", ["a", "b", "c"])
    root = write_task({"x": (np.full((3, 3, 3), np.nan, np.float32), None)}, name="Other")
    data = MultiTaskData({"Liver": task}, (4, 4, 4), ood={"Other": OODImages(str(root))})
    with pytest.raises(DataError, match=r"Other, case x: .*not finite"):
        data.setup("test")


def test_a_held_out_name_that_is_no_task_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.held_out names Lung.*Liver, Kidney, Heart"):
        phantom_data(held_out=["Heart", "Lung"])


def test_a_name_of_both_a_task_and_an_ood_folder_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.ood and data\.tasks both name Liver"):
        phantom_data(ood={"Liver": OODImages("phantom:OtherPhantom")})


@pytest.mark.parametrize("foreground", [1.5, -0.1, float("nan")])
def test_a_foreground_share_outside_its_domain_is_refused_by_its_key(foreground: float) -> None:
    with pytest.raises(ConfigError, match=rf"data\.foreground={foreground}"):
        phantom_data(foreground=foreground)


def test_holding_out_every_task_is_refused() -> None:
    with pytest.raises(ConfigError, match="no task to train"):
        phantom_data(held_out=list(phantom_tasks()))


def test_a_balance_outside_its_domain_is_refused_by_its_key(data: MultiTaskData) -> None:
    data.balance = 2
    with pytest.raises(ConfigError, match=r"data\.balance"):
        data.train_dataloader()


@pytest.fixture
def open_tasks(real_data: Path) -> dict[str, Task]:
    """The tasks of the shipped configuration for the real corpora."""
    config = yaml.safe_load((Path(__file__).parents[2] / "configs" / "multitask-open.yaml").read_text())
    return {name: Task(**block) for name, block in config["data"]["tasks"].items()}


@pytest.mark.real_data
def test_the_real_sarcoma_tasks_share_their_patients_and_their_split(open_tasks: dict[str, Task]) -> None:
    data = MultiTaskData(open_tasks, patch_size=(48, 48, 48))
    data.setup("test")
    side: dict[str, str] = {}
    tasks_of: dict[str, set[str]] = {}
    for name in ("SarcomaMR", "SarcomaCT", "SarcomaPET"):
        for part in PARTS:
            for case in data.cases(name, part):
                assert case.patient.startswith("STS_")
                assert side.setdefault(case.patient, part) == part
                tasks_of.setdefault(case.patient, set()).add(name)
    assert sum(len(tasks) == 3 for tasks in tasks_of.values()) > 10
    for name, parts in data.splits.items():
        cases = sum(map(len, parts.values()))
        for part in ("val", "test"):
            assert abs(len(parts[part]) - 0.2 * cases) <= 2, name
    assert sum(len(cases) for parts in data.splits.values() for cases in parts.values()) == 165


def partly_annotated(write_task: WriteTask, cases: int = 6) -> Task:
    """Cases whose truth is unknown in half of the volume, where the label value 9 marks it."""
    rng = np.random.default_rng(0)
    volumes = {}
    for number in range(cases):
        label = np.zeros((12, 12, 12), np.uint8)
        label[2:5, 3:6, 3:6], label[5:] = 1, 9
        volumes[f"case_{number}"] = (rng.normal(size=label.shape).astype(np.float32), label)
    root = write_task(volumes)
    for folder in ("images", "labels"):
        (root / f"{folder}Tr").rename(root / folder)
    (root / "dataset.json").unlink()
    return Task(str(root), "MR", (1, 1, 1), ["organ"], layout=Folders(organs={"organ": 1}, ignore=9))


def test_unknown_voxels_stay_unknown_in_patches_which_are_not_centred_in_them(write_task: WriteTask) -> None:
    data = MultiTaskData({"T": partly_annotated(write_task)}, (4, 4, 4), batches=8, foreground=1.0)
    data.setup("fit")
    assert data.training_cache("T")[0]["label"].unique().tolist() == [0, 1, UNKNOWN]
    found = list(data.train_dataloader())
    values = torch.cat([batch["label"].flatten() for batch in found])
    assert set(values.unique().tolist()) == {0, 1, UNKNOWN}
    assert all(label.eq(1).any() for batch in found for label in batch["label"])


def test_scans_say_where_their_truth_is_known(write_task: WriteTask, phantoms: Path) -> None:
    data = MultiTaskData({"T": partly_annotated(write_task), "Liver": phantom_tasks()["Liver"]}, (4, 4, 4))
    data.setup("fit")
    for scan in [*data.val_dataloader(), *data.test_dataloader()]:
        if scan["dataset"] == "Liver":
            assert scan["known"] is None
        else:
            assert not scan["label"][0, 5:].any()
            assert scan["label"].max() == 1
            assert torch.equal(scan["known"], (torch.arange(12) < 5)[None, :, None, None].expand(1, 12, 12, 12))


def test_a_fold_may_not_divide_a_patient(write_task: WriteTask) -> None:
    task = tiny_task(write_task, "T", ["p1_a", "p1_b", "p2_a", "p3_a"], patient=r"p\d")
    root = Path(task.root)
    dataset = json.loads((root / "dataset.json").read_text())
    for name in [path.name for path in (root / "imagesTr").iterdir()]:
        (root / "imagesTr" / name).rename(root / "imagesTr" / name.replace(".nii", "_0000.nii"))
    described = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "organ": 1}, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(described | {"numTraining": len(dataset["training"])}))
    for val in (["p3_a"], ["p1_b"]):
        train = [case for case in ("p1_a", "p1_b", "p2_a", "p3_a") if case not in val]
        (root / "splits_final.json").write_text(json.dumps([{"train": train, "val": val}]))
        data = MultiTaskData({"T": replace(task, fold=0)}, (4, 4, 4))
        if val == ["p3_a"]:
            data.setup("fit")
            assert data.splits["T"]["test"] == val
        else:
            with pytest.raises(DataError, match="task T, case p1_b: fold 0 has patient p1 on both sides"):
                data.setup("fit")


def test_tasks_of_different_channels_are_refused(phantoms: Path) -> None:
    tasks = phantom_tasks()
    tasks["Kidney"].channel = [0, 1]
    with pytest.raises(ConfigError, match="Kidney uses 2 channels and Liver 1"):
        MultiTaskData(tasks, (4, 4, 4))
    with pytest.raises(ConfigError, match="Other uses 2 channels and Liver 1"):
        phantom_data(ood={"Other": OODImages("phantom:OtherPhantom", channel=[0, 1])})
