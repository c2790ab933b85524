"""Which runs are compared, and that a refusal names the difference."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medmtl.experiment.analysis.pairing import Pairing, pair_runs, runs_in_common
from medmtl.experiment.analysis.records import read_records

VALUES = {"Liver": {"a": 0.9, "b": 0.8}}


def paired(folder: Path, a: str = "multitask", b: str = "dedicated") -> Pairing:
    by_arm = {arm: [run for run in read_records(folder).runs if run.cell.arm == arm] for arm in (a, b)}
    return pair_runs("Liver", a, b, by_arm[a], by_arm[b])


def test_runs_are_paired_by_seed_and_fold(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    for arm in ("dedicated", "multitask"):
        for seed in (0, 1):
            for fold in (0, 1):
                write_run(arm, VALUES, seed=seed, fold=fold)
    found = paired(tmp_path)
    assert (found.refused, found.left_out) == (None, None)
    cells = [(first.cell, second.cell) for first, second in found.runs]
    assert [(first.seed, first.fold) for first, _ in cells] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert all((first.seed, first.fold) == (second.seed, second.fold) for first, second in cells)
    assert {(first.arm, second.arm) for first, second in cells} == {("multitask", "dedicated")}


def test_runs_without_a_partner_are_named(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    for arm, seeds in (("dedicated", (0, 1)), ("multitask", (1, 2))):
        for seed in seeds:
            write_run(arm, VALUES, seed=seed)
    found = paired(tmp_path)
    assert [first.cell.seed for first, _ in found.runs] == [1]
    assert found.left_out == "seed 2 of multitask, seed 0 of dedicated"


def in_common(folder: Path) -> tuple[dict[str, set[tuple[int, int | None]]], list[str]]:
    """Arm -> seeds and folds that its means are over, and what is said to be left out."""
    runs = read_records(folder).runs
    by_arm = {arm: [run for run in runs if run.cell.arm == arm] for arm in {run.cell.arm: 0 for run in runs}}
    found, sentences = runs_in_common("Liver", by_arm)
    return {arm: {(run.cell.seed, run.cell.fold) for run in kept} for arm, kept in found.items()}, sentences


def test_means_are_over_the_seeds_and_folds_that_all_arms_have(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    seeds_and_folds = {
        "dedicated": [(0, 0), (0, 1), (1, 0)],
        "transfer": [(0, 0), (0, 1)],
        "multitask": [(0, 0), (2, 0)],
    }
    for arm, keys in seeds_and_folds.items():
        for seed, fold in keys:
            write_run(arm, VALUES, seed=seed, fold=fold)
    found, sentences = in_common(tmp_path)
    assert found == {arm: {(0, 0)} for arm in seeds_and_folds}
    assert sentences == [
        "dedicated on Liver: its means leave out seed 0 fold 1, seed 1 fold 0, which not all arms have.",
        "multitask on Liver: its means leave out seed 2 fold 0, which not all arms have.",
        "transfer on Liver: its means leave out seed 0 fold 1, which not all arms have.",
    ]


def test_means_that_have_no_seed_in_common_are_said_to_differ_in_it(
    tmp_path: Path, write_run: Callable[..., Path]
) -> None:
    for arm, seeds in (("dedicated", (0, 1)), ("transfer", (1, 2)), ("multitask", (2, 0))):
        for seed in seeds:
            write_run(arm, VALUES, seed=seed)
    found, sentences = in_common(tmp_path)
    assert found["dedicated"] == {(0, None), (1, None)}
    assert sentences == [
        "Liver: no seed and fold is common to all arms: their means are over different seeds or folds."
    ]


def test_a_missing_arm_is_named(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    write_run("multitask", VALUES)
    assert paired(tmp_path).refused == "there is no finished run of dedicated"
    assert paired(tmp_path, "transfer", "dedicated").refused == "there is no finished run of transfer nor of dedicated"


def test_arms_with_no_seed_in_common_are_not_compared(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    write_run("dedicated", VALUES, seed=0, fold=0)
    write_run("multitask", VALUES, seed=0, fold=1)
    assert paired(tmp_path).refused == "no finished runs have seed and fold in common"


def set_channels(config: dict[str, Any]) -> None:
    config["model"]["network"]["init_args"]["channels"] = [8, 16]


def set_loss(config: dict[str, Any]) -> None:
    config["model"]["loss"]["class_path"] = "monai.losses.DiceLoss"


def set_spacing(config: dict[str, Any]) -> None:
    config["data"]["tasks"]["Liver"]["spacing"] = [3, 3, 3]


def set_patch(config: dict[str, Any]) -> None:
    config["data"]["patch_size"] = [32, 32, 32]


def set_batch(config: dict[str, Any]) -> None:
    config["data"]["batch_size"] = 2


def set_bins(config: dict[str, Any]) -> None:
    config["calibration"]["bins"] = 10


def set_two(config: dict[str, Any]) -> None:
    set_batch(config)
    set_bins(config)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            set_channels,
            "model.network.init_args.channels differs: [8, 16] (multi) and [16, 32] (alone)",
        ),
        (set_loss, "model.loss.class_path differs: monai.losses.DiceLoss (multi) and monai.losses.DiceCELoss (alone)"),
        (set_spacing, "data.tasks.Liver.spacing differs: [3, 3, 3] (multi) and [2, 2, 2] (alone)"),
        (set_patch, "data.patch_size differs: [32, 32, 32] (multi) and [48, 48, 48] (alone)"),
        (set_batch, "data.batch_size differs: 2 (multi) and 4 (alone)"),
        (set_bins, "calibration.bins differs: 10 (multi) and 15 (alone)"),
        (set_two, "data.batch_size differs: 2 (multi) and 4 (alone), and 1 more settings"),
    ],
)
def test_other_settings_are_refused(
    tmp_path: Path, write_run: Callable[..., Path], change: Callable[[dict[str, Any]], None], named: str
) -> None:
    write_run("dedicated", VALUES, name="alone")
    write_run("multitask", VALUES, name="multi", config=change)
    assert paired(tmp_path) == Pairing([], named)


def test_what_arms_differ_in_by_their_nature_is_not_refused(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    def change(config: dict[str, Any]) -> None:
        config["model"]["optimizer"]["init_args"]["lr"] = 1e-4
        config["model"]["finetune"] = {"checkpoint": "best.ckpt", "layers": "all"}
        config["data"]["batches"] = 7

    write_run("dedicated", VALUES)
    write_run("multitask", {**VALUES, "Heart": {"c": 0.7}}, config=change, root="/elsewhere")
    assert paired(tmp_path).refused is None


@pytest.mark.parametrize(
    ("budget", "named"),
    [
        ({"steps": 300}, "300 optimizer steps of 4 patches a model, pre-training included and 5 validations (multi)"),
        ({"notion": "samples"}, "2,400 patches of each task and 5 validations (multi)"),
        (
            {"validations": 2},
            "600 optimizer steps of 4 patches a model, pre-training included and 2 validations (multi)",
        ),
    ],
)
def test_other_budgets_are_refused(
    tmp_path: Path, write_run: Callable[..., Path], budget: dict[str, Any], named: str
) -> None:
    write_run("dedicated", VALUES, name="alone")
    write_run("multitask", VALUES, name="multi", budget=budget)
    other = "600 optimizer steps of 4 patches a model, pre-training included and 5 validations (alone)"
    assert paired(tmp_path).refused == f"the budgets differ: {named}, {other}"


def test_a_training_shared_by_more_processes_has_seen_more_and_is_refused(
    tmp_path: Path, write_run: Callable[..., Path]
) -> None:
    write_run("dedicated", VALUES, name="alone")
    path = write_run("multitask", VALUES, name="multi") / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fit": {"processes": 2}}))
    assert paired(tmp_path).refused == "the processes that shared the training differ: 2 (multi), 1 (alone)"


def test_seeds_of_different_budgets_are_not_mixed(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    for arm in ("dedicated", "multitask"):
        for seed in (0, 1):
            write_run(arm, VALUES, seed=seed, budget={"steps": 300 * (1 + seed)}, name=f"{arm}{seed}")
    refused = paired(tmp_path).refused
    assert "multitask0" in refused
    assert "multitask1" in refused


def test_other_test_cases_of_the_same_fold_are_refused(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    write_run("dedicated", {"Liver": {"a": 0.9, "c": 0.9, "d": 0.7}}, fold=3, name="alone")
    write_run("multitask", {"Liver": {"a": 0.9}}, fold=3, name="multi")
    assert paired(tmp_path).refused == "the tested cases of fold 3 differ: only alone has c and 1 more"


def test_other_training_cases_are_refused(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    write_run("dedicated", VALUES, name="alone", train=("x", "y"))
    write_run("multitask", VALUES, name="multi", train=("x", "y", "z"))
    assert paired(tmp_path).refused == "the training cases differ: only multi has z"


def test_other_folds_may_have_other_cases(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    for arm in ("dedicated", "multitask"):
        write_run(arm, {"Liver": {"a": 0.9}}, fold=0, train=("b",))
        write_run(arm, {"Liver": {"b": 0.9}}, fold=1, train=("a",))
    assert len(paired(tmp_path).runs) == 2
