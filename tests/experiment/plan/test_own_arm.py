"""An arm of one's own: found by its class path, held to the contract, and refused before training if it breaks it."""

import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medmtl.errors import ConfigError
from medmtl.experiment import Arm, Planned, Setting, check_arm
from medmtl.experiment.plan.arms import ARMS, find_arms
from medmtl.experiment.plan.cell import Budget
from medmtl.experiment.plan.labels import FREE_LOOKS, describe_arms
from medmtl.experiment.plan.planning import plan
from medmtl.experiment.plan.protocol import Protocol
from medmtl.look import MARKERS, Look

pytestmark = pytest.mark.usefixtures("resolved_once")

MODULE = '''
from medmtl.experiment import Arm


class WithNext(Arm):
    """Trained on the task and the next one, tested on the task."""

    key = "with_next"
    label = "task and the next"

    def plan(self, setting):
        tasks, protocol = setting.tasks, setting.protocol
        for task, other in zip(tasks, [*tasks[1:], tasks[0]]):
            yield setting.training(self.key, task, protocol.steps_of(protocol.steps, 2), [task, other])
'''


class Own(Arm):
    """As dedicated training, with a change to its runs."""

    key = "own"
    label = "of one's own"

    def __init__(self, change: Callable[[Planned], Planned | None] = lambda planned: planned) -> None:
        self.change = change

    def plan(self, setting: Setting) -> Iterable[Planned]:
        runs = [
            setting.training(self.key, task, setting.protocol.steps_of(setting.protocol.steps))
            for task in setting.tasks
        ]
        return [changed for run in runs if (changed := self.change(run)) is not None]


def with_config(*path: str, value: Any) -> Callable[[Planned], Planned]:
    def change(planned: Planned) -> Planned:
        place: Any = planned.config
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        return planned

    return change


def with_cell(**about: Any) -> Callable[[Planned], Planned]:
    return lambda planned: replace(planned, cell=replace(planned.cell, **about))


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_arms.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine_arms", raising=False)


@pytest.mark.parametrize("entry", ["mine_arms.WithNext", {"class_path": "mine_arms.WithNext"}])
@pytest.mark.usefixtures("module")
def test_it_is_found_by_its_class_path_and_keeps_the_contract(entry: Any) -> None:
    dedicated, own = find_arms(["dedicated", entry])
    assert (dedicated.key, own.key) == ("dedicated", "with_next")
    check_arm(own)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (
            "tranfer",
            "arms names tranfer: use some of: dedicated, transfer, .*, or the class_path of an arm of your own",
        ),
        ("nowhere_at_all.Own", r"arms names nowhere_at_all\.Own, which cannot be made"),
        ({"class_path": "medmtl.look.Look"}, r"arms names medmtl\.look\.Look, which cannot be made"),
        ({"label": "x"}, "arms names"),
    ],
)
def test_an_arm_that_cannot_be_made_is_named(entry: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        find_arms([entry])
    assert "\n" not in str(caught.value)


def arm(**about: Any) -> Arm:
    own = Own()
    for name, value in about.items():
        setattr(own, name, value)
    return own


@pytest.mark.parametrize(
    ("arms", "says"),
    [
        ([arm(key="Own")], "has the key 'Own'"),
        ([arm(key="pretraining")], "has the key 'pretraining'"),
        ([arm(key=None)], "has the key None"),
        ([arm(label="")], "arm own has the label ''"),
        ([arm(label="two\nlines")], "arm own has the label"),
        ([arm(look="o")], "arm own has the look 'o'"),
        ([ARMS["dedicated"], arm(key="dedicated")], "two arms have the key dedicated"),
        ([ARMS["dedicated"], arm(label="dedicated training")], "two arms have the label 'dedicated training'"),
        ([ARMS["dedicated"], arm(look=Look("o", "-", "#000000"))], "arms .* have one marker"),
        ([arm(key=f"own{n}", label=f"own {n}") for n in range(len(FREE_LOOKS) + 1)], "no marker is left for arm own6"),
    ],
)
def test_an_arm_that_cannot_be_shown_is_refused(arms: list[Arm], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        describe_arms(arms)


def test_an_arm_without_a_look_gets_one_that_no_other_has() -> None:
    own = [arm(key=f"own{n}", label=f"own {n}") for n in range(len(FREE_LOOKS))]
    looks = [Look.from_dict(about["look"]) for about in describe_arms([*own, *ARMS.values()]).values()]
    assert len({look.marker for look in looks}) == len(FREE_LOOKS) + len(ARMS)
    assert {look.marker for look in looks} <= set(MARKERS)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda planned: None, "plans no run that is tested"),
        (lambda planned: replace(planned, cell=None), "plans no run that is tested"),
        (lambda planned: replace(planned, name=f"a/{planned.name}"), "which no file can have"),
        (
            lambda planned: replace(planned, needs="another", layers="all"),
            "starts .* from another, which it does not plan",
        ),
        (with_cell(arm="dedicated"), "plans a run of another arm"),
        (with_cell(seed=7), "plans a run of another arm, experiment, seed"),
        (with_cell(task="Lung"), "tests Lung, which is no task of the base"),
        (with_cell(task="LiverCT"), "tests task LiverCT in more than one run"),
    ],
)
def test_runs_that_could_not_be_compared_are_refused_before_any_starts(
    change: Callable[[Planned], Planned | None], says: str
) -> None:
    base = {"data": {"tasks": {"LiverCT": {}, "HeartPET": {}}}}
    setting = Setting("study", Protocol(steps=60, validations=3), base, "split.json", 0, None, None)
    with pytest.raises(ConfigError, match=f"arm own .*{says}"):
        plan([Own(change)], [setting])
    with pytest.raises(AssertionError, match=r"Own breaks its contract"):
        check_arm(Own(change))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (with_config("model", "overlap", value=0.5), r"sets model\.overlap"),
        (with_config("data", "tasks", "LiverCT", value={"root": "elsewhere"}), "plans complete configurations"),
        (with_config("trainer", "max_epochs", value=6), "trains for the steps that it plans"),
        (with_config("data", "batch_sise", value=6), "batch_sise"),
        (lambda planned: replace(planned, steps=60), "trains for the steps"),
        (lambda planned: replace(planned, layers="head"), "names the layers of a fine-tuning"),
        (with_cell(budget=Budget("steps", 1, 4, 3)), "states the budget of the protocol"),
        (lambda planned: planned if "Liver" in planned.name else None, "tests every task once"),
    ],
)
def test_the_contract_names_what_an_arm_breaks(change: Callable[[Planned], Planned | None], says: str) -> None:
    with pytest.raises(AssertionError, match=f"Own breaks its contract.*{says}"):
        check_arm(Own(change))


def test_the_contract_holds_an_arm_to_both_budgets() -> None:
    class Twice(Own):
        def plan(self, setting: Setting) -> Iterable[Planned]:
            steps = setting.protocol.steps_of(2 * setting.protocol.steps)
            return [setting.training(self.key, task, steps) for task in setting.tasks]

    class ShortOfSamples(Own):
        def plan(self, setting: Setting) -> Iterable[Planned]:
            return [setting.training(self.key, None, setting.protocol.steps)]

    with pytest.raises(AssertionError, match="keeps to the budget of steps"):
        check_arm(Twice())
    with pytest.raises(AssertionError, match="keeps to the budget of samples"):
        check_arm(ShortOfSamples())


def test_a_look_that_cannot_be_drawn_is_refused_and_one_that_can_survives_json() -> None:
    for wrong in (("O", "-", "#000000"), ("o", "--", "#000000"), ("o", (0, (5,)), "#000000"), ("o", "-", "grey")):
        with pytest.raises(ConfigError):
            Look(*wrong)  # type: ignore[arg-type]
    for look in (*FREE_LOOKS, Look("o", "-", "#123ABC")):
        assert Look.from_dict(look.to_dict()) == look
