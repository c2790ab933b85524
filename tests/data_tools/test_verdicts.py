"""Too few patients for verdicts are said before anything is trained, with the number that is needed."""

from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import yaml

from medmtl.cli import main
from medmtl.data_tools.verdicts import Plan
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
    task = {"root": str(root), "modality": "CT", "organ": [1], "spacing": [1, 1, 1]}
    for alpha, layers, expected in ((0.05, ["a"], True), (0.5, ["a"], False), (0.05, [], False)):
        config = tmp_path / "own.yaml"
        config.write_text(
            yaml.safe_dump({"data": {"tasks": {"Own": task}}, "spectral": {"alpha": alpha, "layers": layers}})
        )
        main(["data", "check", "--config", str(config), "--output", str(tmp_path / "out"), "--jobs", "1"])
        assert ("too few for verdicts" in capsys.readouterr().out) == expected
