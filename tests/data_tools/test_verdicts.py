"""Too few patients for verdicts are said before anything is trained, with the number that is needed."""

import inspect
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from medmtl.callbacks.spectral import SpectralCallback
from medmtl.cli import main
from medmtl.data.datamodule import MultiTaskData
from medmtl.data_tools.verdicts import Plan, too_few
from medmtl.errors import ConfigError
from medmtl.ood.conformal import ConformalRule, can_decide, held_out_needed

WriteTask = Callable[..., Path]


@pytest.mark.parametrize(("alpha", "training"), [*product((0.05, 0.1, 0.5), (0, 4, 9, 30))])
def test_so_many_held_out_patients_as_needed_let_the_rule_decide_and_one_less_does_not(
    alpha: float, training: int
) -> None:
    def rule(held_out: int) -> ConformalRule:
        trained = {"Liver": [0.1 * number for number in range(training)]} if training else None
        return ConformalRule({"Liver": [0.1 * number for number in range(held_out)]}, alpha, training=trained)

    needed = held_out_needed(alpha, training)
    assert rule(needed).decides
    assert can_decide(alpha, needed, needed, training)
    if needed > 1:
        assert not rule(needed - 1).decides
        assert not can_decide(alpha, needed - 1, needed - 1, training)


def test_the_number_needed_is_the_smallest_that_decides() -> None:
    plan = Plan(val=0.2, test=0.2, calibration=0.0, alpha=0.05)
    people = [str(number) for number in range(plan.needed())]
    assert plan.decides({"Liver": people})
    assert not plan.decides({"Liver": people[:-1]})
    assert plan.decides({"Liver": people[::2], "Heart": people[1::2]})  # the tasks share a pool


def configured(folder: Path, **sections: object) -> Path:
    (folder / "own.yaml").write_text(yaml.safe_dump(sections))
    return folder / "own.yaml"


@pytest.mark.parametrize(("alpha", "needed"), [(0.0005, 2499), (0.5, 3)])
def test_the_number_needed_is_found_for_any_alpha(alpha: float, needed: int | None) -> None:
    assert Plan(val=0.2, test=0.2, calibration=0.0, alpha=alpha).needed() == needed


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (Plan(0, 0.2, 0, 0.05), r"no patient is held out .* will be undecided: data\.val is 0"),
        (Plan(0, 0.2, 0.1, 0.05), "30 labelled patients are too few .* about 95 are needed"),
        (Plan(0.2, 0.2, 0, 1e-6), "30 labelled patients are too few .* more than 10,000 are needed"),
    ],
)
def test_what_is_lacking_is_said(plan: Plan, said: str) -> None:
    cases = [SimpleNamespace(dataset="Own", patient=str(number), labels={1: 9}) for number in range(30)]
    assert re.search(said, str(too_few([SimpleNamespace(name="Own", use="task")], cases, plan)))


@pytest.mark.parametrize(
    ("data", "spectral"),
    [
        ({"val": 0.6, "test": 0.6}, {}),
        ({"val": -0.1}, {}),
        ({"calibration": 1}, {}),
        ({"val": None}, {}),  # fit refuses it too
        ({"val": "abc"}, {}),
        ({"test": [0.1]}, {}),
        ({"val": math.nan}, {}),
        ({}, {"alpha": 0}),
        ({}, {"alpha": 1}),
        ({}, {"alpha": None}),
        ({}, {"alpha": "abc"}),
        ({}, {"alpha": math.nan}),
        ({}, {"layers": 3}),
        ({"held_out": 3}, {}),
        (3, {}),
        ({}, 3),
        ([1], {}),
    ],
)
def test_shares_that_no_training_takes_are_refused(tmp_path: Path, data: object, spectral: object) -> None:
    if isinstance(spectral, dict):
        spectral = {"layers": ["a"], **spectral}
    with pytest.raises(ConfigError, match=r"data|spectral"):
        Plan.of(configured(tmp_path, data=data, spectral=spectral))


def test_a_plan_is_read_as_fit_reads_it(tmp_path: Path) -> None:
    """Defaults are those of the classes, and numbers may be written as text."""
    spectral = {"layers": ["a"], "alpha": "5e-3"}
    plan = Plan.of(configured(tmp_path, data={"held_out": ["Heart"], "tasks": {}, "foreign": {}}, spectral=spectral))
    defaults = {name: each.default for name, each in inspect.signature(MultiTaskData).parameters.items()}
    assert plan == Plan(defaults["val"], defaults["test"], defaults["calibration"], 0.005, ("Heart",))
    assert Plan.of() == replace(
        plan, alpha=inspect.signature(SpectralCallback).parameters["alpha"].default, held_out=()
    )
    assert Plan.of(configured(tmp_path, data={"splits": "splits.json"}, spectral=spectral)) is None


def test_patients_of_a_task_that_is_held_out_do_not_count() -> None:
    plan = Plan(val=0.2, test=0.2, calibration=0.0, alpha=0.05)
    patients = {name: [f"{name} {number}" for number in range(30)] for name in ("Liver", "Heart")}
    assert plan.decides(patients)
    assert not replace(plan, held_out=("Heart",)).decides(patients)


def test_data_check_says_it_of_a_folder_and_of_a_configuration(
    write_task: WriteTask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = np.random.default_rng(0).normal(size=(8, 8, 8))
    label = np.zeros((8, 8, 8), np.uint8)
    label[2:5, 2:5, 2:5] = 1
    root = write_task({f"case{number}": (image + number, label) for number in range(3)})
    main(["data", "check", str(root), "--output", str(tmp_path / "out"), "--jobs", "1"])
    said = capsys.readouterr().out
    assert "3 labelled patients are too few for verdicts" in said
    assert "about 48 are needed at spectral.alpha = 0.05" in said
    written = json.loads((tmp_path / "out" / "check.json").read_text())["too_few_patients"]
    assert written.startswith("3 labelled patients are too few for verdicts")
    assert written in (tmp_path / "out" / "check.html").read_text()
    task = {"root": str(root), "modality": "CT", "organ": [1], "spacing": [1, 1, 1]}
    for alpha, layers, expected in ((0.05, ["a"], True), (0.5, ["a"], False), (0.05, [], False)):
        config = configured(tmp_path, data={"tasks": {"Own": task}}, spectral={"alpha": alpha, "layers": layers})
        main(["data", "check", "--config", str(config), "--output", str(tmp_path / "out"), "--jobs", "1"])
        assert ("too few for verdicts" in capsys.readouterr().out) == expected
        assert (json.loads((tmp_path / "out" / "check.json").read_text())["too_few_patients"] is None) != expected
