"""Arms: the runs that each needs, equal budgets, and nothing but the intended keys changed."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from medmtl.errors import ConfigError
from medmtl.experiment import Arm, check_arm
from medmtl.experiment.plan.arms import ARMS, find_arms
from medmtl.experiment.plan.planning import plan
from medmtl.experiment.plan.protocol import Protocol
from medmtl.experiment.plan.setting import Planned, Setting, with_overrides

TASKS = ("Liver", "Kidney", "Heart")
BASE: dict[str, Any] = {
    "seed_everything": 9,
    "data": {"tasks": {name: {"root": name} for name in TASKS}, "batch_size": 4, "batches": 7, "balance": 0.5},
    "model": {"network": "a network", "optimizer": {"init_args": {"lr": 0.1}}},
    "trainer": {"max_steps": 3, "max_epochs": 2, "gradient_clip_val": 12},
}


def setting(seed: int = 0, fold: int | None = None, cases: int | None = None, **options: Any) -> Setting:
    protocol = Protocol(**{"steps": 600, "validations": 3, **options})
    return Setting("study", protocol, deepcopy(BASE), "split.json", seed, fold, cases)


def planned_by(*arms: str, settings: list[Setting]) -> list[Planned]:
    return plan(find_arms(arms), settings)


def runs(arm: str, **options: Any) -> dict[str, Planned]:
    return {planned.name: planned for planned in planned_by(arm, settings=[setting(**options)])}


@pytest.mark.parametrize("arm", ARMS.values(), ids=ARMS.keys())
@pytest.mark.usefixtures("resolved_once")
def test_a_built_in_arm_keeps_the_contract(arm: Arm) -> None:
    check_arm(arm)


def test_dedicated_is_one_run_a_task_on_that_task_alone() -> None:
    found = runs("dedicated")
    assert list(found) == ["dedicated-Liver-seed0", "dedicated-Kidney-seed0", "dedicated-Heart-seed0"]
    for planned, task in zip(found.values(), TASKS, strict=True):
        assert list(planned.config["data"]["tasks"]) == [task]
        assert planned.cell is not None
        assert (planned.cell.arm, planned.cell.task, planned.needs) == ("dedicated", task, None)


@pytest.mark.parametrize(
    ("arm", "layers"), [("transfer", "all"), ("transfer_decoder", "decoder"), ("transfer_head", "head")]
)
def test_transfer_is_pretrained_on_the_other_tasks_and_never_on_its_own(arm: str, layers: str) -> None:
    found = runs(arm)
    for task in TASKS:
        tuned = found[f"{arm}-{task}-seed0"]
        assert tuned.needs is not None
        source = found[tuned.needs]
        assert set(source.config["data"]["tasks"]) == set(TASKS) - {task}
        assert (source.cell, tuned.layers, list(tuned.config["data"]["tasks"])) == (None, layers, [task])
    assert len(found) == 6


def test_transfer_from_one_task_has_one_pretraining_and_no_run_for_that_task() -> None:
    found = runs("transfer", pretrain_on="Kidney")
    assert list(found) == ["pretraining-on-Kidney-seed0", "transfer-Liver-seed0", "transfer-Heart-seed0"]
    assert {planned.needs for planned in found.values()} == {None, "pretraining-on-Kidney-seed0"}


def test_multitask_is_one_run_on_all_tasks() -> None:
    (planned,) = runs("multitask").values()
    assert planned.name == "multitask-seed0"
    assert planned.config["data"]["tasks"] == BASE["data"]["tasks"]
    assert planned.cell is not None
    assert planned.cell.task is None


def test_modes_of_transfer_share_their_pretraining() -> None:
    planned = planned_by("transfer", "transfer_decoder", "transfer_head", settings=[setting()])
    names = [run.name for run in planned]
    assert len(names) == len(set(names)) == 3 + 3 * 3


@pytest.mark.parametrize(
    ("budget", "steps"), [("steps", (450, 450, 150, 150)), ("samples", (2 * 600, 3 * 450, 600, 150))]
)
def test_both_budgets_in_steps_of_pretraining_and_finetuning(budget: str, steps: tuple[int, ...]) -> None:
    found = {**runs("transfer", budget=budget, finetune_share=0.25)}
    found |= runs("multitask_finetune", budget=budget, finetune_share=0.25)
    names = ("pretraining-without-Liver", "pretraining-union", "transfer-Liver", "multitask_finetune-Liver")
    assert tuple(found[f"{name}-seed0"].steps for name in names) == steps
    config = found["pretraining-union-seed0"].config
    assert config["trainer"] == {"max_epochs": 3, "gradient_clip_val": 12}
    assert config["data"]["balance"] == (0.5 if budget == "steps" else 0)


def test_a_run_differs_from_the_base_only_where_the_arm_says() -> None:
    found = runs("dedicated", seed=5, fold=1, cases=4)["dedicated-Liver-4cases-fold1-seed5"]
    config = deepcopy(found.config)
    assert config.pop("seed_everything") == 5
    assert config["data"].pop("splits") == "split.json"
    assert config.pop("wandb") == {
        "group": "study",
        "job_type": "dedicated",
        "tags": ["Liver", "4cases", "fold1", "seed5"],
    }
    assert config["model"] == BASE["model"]
    assert config["data"] == {"tasks": {"Liver": {"root": "Liver"}}, "batch_size": 4, "batches": 200, "balance": 0.5}
    assert found.cell is not None
    assert (found.cell.seed, found.cell.fold, found.cell.cases) == (5, 1, 4)


def test_overrides_of_finetuning_reach_only_finetuning() -> None:
    overrides = {"model.optimizer.init_args.lr": 0.01}
    for planned in planned_by(*ARMS, settings=[setting(finetune_overrides=overrides)]):
        rate = planned.config["model"]["optimizer"]["init_args"]["lr"]
        assert rate == (0.1 if planned.needs is None else 0.01)


def test_seeds_folds_and_sizes_multiply_and_names_stay_unique() -> None:
    settings = [setting(seed, fold, cases) for seed in (0, 1) for fold in (0, 1) for cases in (2, None)]
    names = [planned.name for planned in planned_by(*ARMS, settings=settings)]
    assert len(names) == len(set(names)) == 8 * len(planned_by(*ARMS, settings=settings[:1]))


def test_a_pretraining_on_no_task_and_a_base_of_one_task_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"pretrain_on=Lung.*use others, or one of the tasks: Liver, Kidney, Heart"):
        planned_by("transfer", settings=[setting(pretrain_on="Lung")])
    alone = replace(setting(), base={**BASE, "data": {"tasks": {"Heart": {}}}})
    with pytest.raises(ConfigError, match=r"one task \(Heart\)"):
        planned_by("transfer", settings=[alone])


def test_overrides_set_nested_keys_and_leave_the_original_alone() -> None:
    before = deepcopy(BASE)
    found = with_overrides(BASE, {"data.batch_size": 2, "spectral.layers": []})
    assert (found["data"]["batch_size"], found["spectral"]) == (2, {"layers": []})
    assert before == BASE


def test_an_override_through_a_value_is_refused_by_its_key() -> None:
    with pytest.raises(ConfigError, match=r"data\.batch_size\.x leads through batch_size"):
        with_overrides(BASE, {"data.batch_size.x": 2})
