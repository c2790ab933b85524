"""Arms: the runs that each needs, equal budgets, and nothing but the intended keys changed."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from medmtl.errors import ConfigError
from medmtl.experiment.plan.arms import PLANS, Planned, Setting, plan, with_overrides
from medmtl.experiment.plan.cell import ARMS
from medmtl.experiment.plan.protocol import Protocol

TASKS = ("Liver", "Kidney", "Heart")
BASE: dict[str, Any] = {
    "seed_everything": 9,
    "data": {"tasks": {name: {"root": name} for name in TASKS}, "batch_size": 4, "batches": 7, "balance": 0.5},
    "model": {"network": "a network", "optimizer": {"init_args": {"lr": 0.1}}},
    "trainer": {"max_steps": 3, "max_epochs": 2, "gradient_clip_val": 12},
}


def setting(seed: int = 0, fold: int | None = None, cases: int | None = None, **options: Any) -> Setting:
    protocol = Protocol(**{"arms": list(ARMS), "steps": 600, "validations": 3, **options})
    return Setting("study", protocol, deepcopy(BASE), "split.json", seed, fold, cases)


def runs(arm: str, **options: Any) -> dict[str, Planned]:
    return {planned.name: planned for planned in plan([setting(arms=[arm], **options)])}


def steps_seen(planned: Planned, all_runs: dict[str, Planned]) -> int:
    before = steps_seen(all_runs[planned.needs], all_runs) if planned.needs else 0
    return before + planned.steps


def patches_a_task(planned: Planned, all_runs: dict[str, Planned], task: str) -> float:
    before = patches_a_task(all_runs[planned.needs], all_runs, task) if planned.needs else 0
    tasks = list(planned.config["data"]["tasks"])
    equally = len(tasks) == 1 or planned.config["data"]["balance"] == 0
    assert equally
    return before + (planned.steps * 4 / len(tasks) if task in tasks else 0)


def test_there_is_a_plan_for_every_arm() -> None:
    assert tuple(PLANS) == ARMS


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


def test_transfer_from_one_task_has_one_pretraining_and_no_run_for_the_source() -> None:
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
    names = [planned.name for planned in plan([setting(arms=["transfer", "transfer_decoder", "transfer_head"])])]
    assert len(names) == len(set(names)) == 3 + 3 * 3


@pytest.mark.parametrize("arm", ARMS)
def test_under_steps_every_tested_model_has_seen_the_same_steps(arm: str) -> None:
    found = runs(arm, budget="steps", finetune_share=0.25)
    assert {steps_seen(planned, found) for planned in found.values() if planned.cell} == {600}


@pytest.mark.parametrize("arm", ARMS)
def test_under_samples_every_tested_model_has_seen_the_same_patches_of_its_tasks(arm: str) -> None:
    found = runs(arm, budget="samples", finetune_share=0.25)
    for planned in found.values():
        if planned.cell:
            own = TASKS if planned.cell.task is None else [planned.cell.task]
            assert [patches_a_task(planned, found, task) for task in own] == [2400] * len(own)


@pytest.mark.parametrize("arm", ARMS)
def test_epochs_and_batches_make_the_steps_of_the_plan(arm: str) -> None:
    for planned in runs(arm).values():
        config = planned.config
        assert config["data"]["batches"] * config["trainer"]["max_epochs"] == planned.steps
        assert config["trainer"] == {"max_epochs": 3, "gradient_clip_val": 12}


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
    for planned in plan([setting(finetune_overrides=overrides)]):
        rate = planned.config["model"]["optimizer"]["init_args"]["lr"]
        assert rate == (0.1 if planned.needs is None else 0.01)


def test_seeds_folds_and_sizes_multiply_and_names_stay_unique() -> None:
    settings = [setting(seed, fold, cases) for seed in (0, 1) for fold in (0, 1) for cases in (2, None)]
    names = [planned.name for planned in plan(settings)]
    assert len(names) == len(set(names)) == 8 * len(plan(settings[:1]))


def test_a_source_that_is_no_task_and_a_base_of_one_task_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"pretrain_on=Lung.*use others, or one of the tasks: Liver, Kidney, Heart"):
        plan([setting(pretrain_on="Lung")])
    alone = replace(setting(), base={**BASE, "data": {"tasks": {"Heart": {}}}})
    with pytest.raises(ConfigError, match=r"one task \(Heart\)"):
        plan([alone])


def test_overrides_set_nested_keys_and_leave_the_original_alone() -> None:
    before = deepcopy(BASE)
    found = with_overrides(BASE, {"data.batch_size": 2, "spectral.layers": []})
    assert (found["data"]["batch_size"], found["spectral"]) == (2, {"layers": []})
    assert before == BASE


def test_an_override_through_a_value_is_refused_by_its_key() -> None:
    with pytest.raises(ConfigError, match=r"data\.batch_size\.x leads through batch_size"):
        with_overrides(BASE, {"data.batch_size.x": 2})
