"""Protocol: domains are checked by key, budgets divide as they say."""

from typing import Any

import pytest
import yaml

from medmtl.errors import ConfigError
from medmtl.experiment.plan.cell import Budget, Cell
from medmtl.experiment.plan.protocol import Protocol


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"arms": []}, r"arms=\[\]"),
        ({"arms": [{"class_path": "a.B"}, {"class_path": "a.B"}]}, r"arms=.*each once"),
        ({"seeds": [1, 1]}, r"seeds=\[1, 1\]"),
        ({"sizes": [2, "all", 2]}, "sizes="),
        ({"sizes": [0, "all"]}, "sizes="),
        ({"steps": 0}, "steps=0"),
        ({"folds": 0}, "folds=0"),
        ({"validations": 0}, "validations=0"),
        ({"at_once": 0}, "at_once=0"),
        ({"finetune_share": 1.0}, "finetune_share=1.0"),
    ],
)
def test_a_value_outside_its_domain_is_refused_by_its_key(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Protocol(**options)


def test_under_steps_a_run_has_its_share_of_the_steps_whatever_the_number_of_tasks() -> None:
    protocol = Protocol(budget="steps", steps=600, validations=3)
    assert [protocol.steps_of(600, 5), protocol.steps_of(300, 4), protocol.steps_of(300)] == [600, 300, 300]


def test_under_samples_each_task_adds_to_the_steps() -> None:
    protocol = Protocol(budget="samples", steps=600, validations=3)
    assert [protocol.steps_of(600, 5), protocol.steps_of(300, 4), protocol.steps_of(300)] == [3000, 1200, 300]


@pytest.mark.parametrize(("steps", "share"), [(15, 0.5), (5, 0.5), (1001, 0.5), (7, 0.3)])
def test_pretraining_and_finetuning_share_the_budget_without_a_rest(steps: int, share: float) -> None:
    protocol = Protocol(steps=steps, finetune_share=share, validations=1)
    assert protocol.pretraining + protocol.finetuning == steps
    assert protocol.finetuning == pytest.approx(steps * share, abs=0.5)


def test_steps_that_the_validations_do_not_divide_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"steps=601: .* of 601 steps cannot be divided into 3 parts"):
        Protocol(steps=601, validations=3).steps_of(601)


def test_overrides_of_finetuning_that_could_change_its_budget_or_data_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"finetune_overrides sets trainer\.max_epochs"):
        Protocol(finetune_overrides={"model.overlap": 0.5, "trainer.max_epochs": 30})


def test_the_budget_says_in_words_what_arms_have_in_common() -> None:
    steps = Protocol(steps=1000).budget_of(4)
    assert steps.text == "1,000 optimizer steps of 4 patches a model, pre-training included"
    assert Protocol(steps=1000, budget="samples").budget_of(4).text == "4,000 patches of each task"


def test_a_protocol_and_a_cell_are_read_back_as_they_were_written() -> None:
    protocol = Protocol(
        arms=["transfer", {"class_path": "mine.Own"}], sizes=[2, "all"], overrides={"data.ood": {}}, seeds=[3]
    )
    assert Protocol(**yaml.safe_load(protocol.to_yaml())) == protocol
    cell = Cell("name", "transfer", "Liver", 3, 1, 2, Budget("steps", 10, 4, 5))
    assert Cell.from_dict(cell.to_dict()) == cell
