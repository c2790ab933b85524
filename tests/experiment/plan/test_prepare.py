"""Preparation: everything a run needs is on disk before it starts, and finished runs are known by what they were."""

import json
import shutil
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from medmtl.data.datamodule import MultiTaskData
from medmtl.data.splits import PARTS, read_splits
from medmtl.data.task import Task
from medmtl.errors import ConfigError, DataError
from medmtl.experiment.plan.job import Job
from medmtl.experiment.plan.prepare import prepare, write_plan
from medmtl.experiment.plan.protocol import Protocol

TASKS = {
    "Liver": {"root": "phantom:LiverCT", "modality": "CT", "organ": [1], "spacing": [8, 8, 8]},
    "Kidney": {"root": "phantom:KidneyT2", "modality": "MR", "organ": [1, 2], "spacing": [8, 8, 8]},
    "Heart": {"root": "phantom:HeartPET", "modality": "PET", "organ": [1], "spacing": [8, 8, 8]},
}
BASE: dict[str, Any] = {
    "run": "a-name",
    "data": {"tasks": TASKS, "patch_size": [16, 16, 16], "val": 0.3, "test": 0.3},
    "model": {
        "network": {
            "class_path": "monai.networks.nets.UNet",
            "init_args": {"spatial_dims": 3, "in_channels": 1, "out_channels": 1, "channels": [4, 8], "strides": [2]},
        },
        "loss": {"class_path": "monai.losses.DiceCELoss", "init_args": {"sigmoid": True}},
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}},
    },
    "spectral": {"layers": []},
    "trainer": {"max_epochs": 2},
}


@pytest.fixture
def place(phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a base configuration in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE, sort_keys=False))
    return tmp_path


def jobs_of(**options: Any) -> dict[str, Job]:
    protocol = Protocol(**{"base": "base.yaml", "steps": 20, "validations": 2, **options})
    jobs = prepare(protocol, Path("runs/study"))
    write_plan(protocol, Path("runs/study"), jobs)
    return {job.name: job for job in jobs}


def config_of(job: Job) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(job.config.read_text())
    return found


def test_runs_of_tasks_with_classes_have_the_features_of_all(place: Path) -> None:
    """A run that starts from another takes its weights, whatever tasks each has."""
    base = deepcopy(BASE)
    del base["data"]["tasks"]["Kidney"]["organ"]
    base["data"]["tasks"]["Kidney"]["classes"] = {"right kidney": 1, "left kidney": "left kidney"}
    del base["model"]["network"]["init_args"]["out_channels"]
    (place / "base.yaml").write_text(yaml.safe_dump(base, sort_keys=False))
    for job in jobs_of().values():
        model = config_of(job)["model"]
        assert model["outputs"] == "per_task"
        assert model["network"]["init_args"]["out_channels"] == 3  # a background and two kidneys


@pytest.mark.parametrize("classes", [False, True])
def test_an_arm_compares_outputs_per_task_with_a_shared_one(place: Path, classes: bool) -> None:
    base = deepcopy(BASE)
    if classes:
        del base["data"]["tasks"]["Kidney"]["organ"], base["model"]["network"]["init_args"]["out_channels"]
        base["data"]["tasks"]["Kidney"]["classes"] = {"right kidney": 1, "left kidney": "left kidney"}
    (place / "base.yaml").write_text(yaml.safe_dump(base, sort_keys=False))
    jobs = jobs_of(arms=["multitask", "multitask_per_task"], overrides={"model.outputs": "shared"})
    outputs = {job.cell.arm: config_of(job)["model"]["outputs"] for job in jobs.values() if job.cell is not None}
    assert outputs == {"multitask": "shared", "multitask_per_task": "per_task"}


def test_every_run_has_its_configuration_and_job_on_disk_and_the_protocol_is_kept(place: Path) -> None:
    jobs = jobs_of()
    assert len(jobs) == 3 + 2 * 3 + 1
    for job in jobs.values():
        assert job.file.is_file()
        assert Job.from_dict(json.loads(job.file.read_text())) == job
        assert config_of(job)["data"]["batches"] * 2 == job.steps
        assert job.run.path.name == f"{job.name}-{job.fingerprint[:8]}"
    again = Protocol(**yaml.safe_load(Path("runs/study/experiment.yaml").read_text()))
    assert again == Protocol(base="base.yaml", steps=20, validations=2)


def test_all_arms_train_and_test_on_the_split_of_the_base(place: Path) -> None:
    whole = MultiTaskData({name: Task(**task) for name, task in TASKS.items()}, (16, 16, 16), val=0.3, test=0.3)
    whole.setup("plan")
    for job in jobs_of().values():
        assert read_splits(Path(config_of(job)["data"]["splits"])) == whole.splits


def test_a_finetuning_starts_from_the_best_checkpoint_of_what_it_needs(place: Path) -> None:
    jobs = jobs_of(arms=["transfer_head"])
    for job in jobs.values():
        start = config_of(job)["model"]["finetune"]
        if job.needs is None:
            assert start is None
        else:
            assert start == {"checkpoint": str(jobs[job.needs].run.best), "layers": "head"}


def test_folds_test_every_case_once_and_share_files_among_arms(place: Path) -> None:
    jobs = jobs_of(folds=3, arms=["dedicated", "multitask"])
    paths = {config_of(job)["data"]["splits"] for job in jobs.values()}
    assert sorted(Path(path).name for path in paths) == ["fold0.json", "fold1.json", "fold2.json"]
    tested = [case for path in paths for case in read_splits(Path(path))["Liver"]["test"]]
    assert len(tested) == len(set(tested)) == 3
    assert {job.cell.fold for job in jobs.values() if job.cell} == {0, 1, 2}


def test_folds_deal_a_calibration_part_where_the_base_has_one(place: Path, phantoms: Path) -> None:
    root = Path(shutil.copytree(phantoms / "LiverCT", place / "Liver"))
    for folder in ("imagesTr", "labelsTr"):
        shutil.copy(root / folder / "phantom_LiverCT_001.nii.gz", root / folder / "phantom_LiverCT_009.nii.gz")
    listed = json.loads((root / "dataset.json").read_text())
    more = {
        key: f"./{folder}/phantom_LiverCT_009.nii.gz" for key, folder in (("image", "imagesTr"), ("label", "labelsTr"))
    }
    (root / "dataset.json").write_text(json.dumps(listed | {"training": [*listed["training"], more]}))
    four = {"data.tasks": {name: TASKS["Liver"] | {"root": str(root)} for name in ("Liver", "Again")}}
    shares = dict.fromkeys(("data.val", "data.calibration", "data.test"), 0.25)
    jobs = jobs_of(folds=4, arms=["multitask"], overrides=four | shares)
    assert len(jobs) == 4
    for job in jobs.values():
        for parts in read_splits(Path(config_of(job)["data"]["splits"])).values():
            assert {part: len(cases) for part, cases in parts.items()} == dict.fromkeys((*PARTS, "calibration"), 1)


def test_a_size_that_every_training_set_is_below_is_left_out(place: Path) -> None:
    jobs = jobs_of(sizes=[1, 8, "all"])
    assert {job.cell.cases for job in jobs.values() if job.cell} == {None}


def finish(job: Job) -> None:
    job.run.path.mkdir(parents=True, exist_ok=True)
    job.record(finished=True, seconds=1.0)


def test_a_finished_run_is_known_by_its_fingerprint_and_not_by_its_name(place: Path) -> None:
    jobs = jobs_of()
    finish(jobs["multitask-seed0"])
    jobs["multitask-seed0"].run.path.rename("runs/study/runs/another-name")
    again = jobs_of()
    assert [name for name, job in again.items() if job.finished] == ["multitask-seed0"]
    assert again["multitask-seed0"].run.path == Path("runs/study/runs/another-name")


def test_a_change_of_what_matters_makes_a_new_run_and_keeps_the_old(place: Path) -> None:
    first = jobs_of()
    finish(first["multitask-seed0"])
    changed: dict[str, Any] = deepcopy(BASE)
    changed["model"]["optimizer"]["init_args"]["lr"] = 0.02
    (place / "base.yaml").write_text(yaml.safe_dump(changed, sort_keys=False))
    second = jobs_of()
    assert not second["multitask-seed0"].finished
    assert second["multitask-seed0"].run != first["multitask-seed0"].run
    assert first["multitask-seed0"].finished


def test_a_new_source_makes_a_new_finetuning(place: Path) -> None:
    before, after = (jobs_of(arms=["transfer"], overrides=overrides) for overrides in ({}, {"data.balance": 0}))
    assert all(before[name].fingerprint != after[name].fingerprint for name in before)


def test_configurations_of_an_earlier_protocol_are_removed_and_runs_are_not(place: Path) -> None:
    finish(jobs_of()["dedicated-Liver-seed0"])
    jobs = jobs_of(arms=["multitask"])
    folder = Path("runs/study")
    assert [path.stem for path in (folder / "configs").iterdir()] == list(jobs)
    assert [path.stem for path in (folder / "jobs").iterdir()] == list(jobs)
    assert len(list((folder / "runs").iterdir())) == 1


def test_tasks_that_the_base_holds_out_are_no_part_of_the_experiment(place: Path) -> None:
    jobs = jobs_of(arms=["multitask"], overrides={"data.held_out": ["Heart"]})
    assert list(config_of(jobs["multitask-seed0"])["data"]["tasks"]) == ["Liver", "Kidney"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"base": "nowhere.yaml"}, "there is no configuration nowhere.yaml"),
        ({"overrides": {"data.batch_sise": 2}}, "batch_sise"),
        ({"finetune_overrides": {"model.optimizer.init_args.lrr": 2}}, "lrr"),
        ({"pretrain_on": "Lung"}, "pretrain_on=Lung"),
        ({"overrides": {"trainer.max_time": "00:01:00:00"}}, r"trainer\.max_time: leave it out"),
        ({"overrides": {"trainer.accumulate_grad_batches": 2}}, r"trainer\.accumulate_grad_batches"),
        ({"overrides": {"trainer.limit_val_batches": 0.2}}, r"trainer\.limit_val_batches"),
        ({"overrides": {"data.held_out": ["Hart"]}}, "data.held_out names Hart"),
        ({"overrides": {"data.tasks": ["Liver"]}}, "tasks"),
        ({"overrides": {"model.finetune": {"checkpoint": "x.ckpt"}}}, r"sets model\.finetune"),
    ],
)
def test_what_cannot_be_used_is_named_before_anything_runs(place: Path, options: Mapping[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        jobs_of(**options)
    assert not Path("runs/study/configs").exists()


def test_a_task_without_test_cases_is_named_before_anything_runs(place: Path) -> None:
    with pytest.raises(DataError, match="task Liver has no test case"):
        jobs_of(overrides={"data.test": 0})


def test_what_a_crash_left_of_a_run_is_no_finished_run(place: Path) -> None:
    job = jobs_of()["multitask-seed0"]
    job.run.path.mkdir(parents=True)
    job.run.manifest.write_text("")
    assert jobs_of()["multitask-seed0"].run == job.run


def test_each_run_is_on_one_device_and_anneals_over_its_own_length(place: Path) -> None:
    scheduler = {"class_path": "torch.optim.lr_scheduler.OneCycleLR", "init_args": {"max_lr": 0.1, "total_steps": 999}}
    for job in jobs_of(overrides={"model.scheduler": scheduler}).values():
        assert config_of(job)["trainer"]["devices"] == 1
        assert config_of(job)["model"]["scheduler"]["init_args"].get("total_steps") is None


def test_a_task_whose_name_no_file_can_have_is_trained_all_the_same(place: Path) -> None:
    jobs = jobs_of(arms=["dedicated"], overrides={"data.tasks": {"MR/A": TASKS["Liver"], "MR B": TASKS["Kidney"]}})
    assert list(jobs) == ["dedicated-MR_A-seed0", "dedicated-MR_B-seed0"]
    assert all(job.config.parent == Path("runs/study/configs") for job in jobs.values())
    with pytest.raises(ConfigError, match="two training runs are called dedicated-MR_A-seed0: rename a task"):
        jobs_of(arms=["dedicated"], overrides={"data.tasks": {"MR/A": TASKS["Liver"], "MR A": TASKS["Kidney"]}})
