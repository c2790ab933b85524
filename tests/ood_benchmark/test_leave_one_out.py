"""Leave one task out: against AUROCs by hand, on evidence of tasks that differ."""

import json
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from sklearn.metrics import roc_auc_score

from medmtl.ood.detectors import KNN, ByTask, MDPool, OutputScore
from medmtl.ood.detectors.synthetic import TASKS, draw_evidence, draw_training
from medmtl.ood_benchmark.leave_one_out import leave_one_task_out, print_left_out, write_left_out


def every_preprocessing(task: str, patient: int):
    own = draw_evidence(task, patient)
    views = tuple(replace(own.view, preprocessing=f"preprocessing of {other}") for other in TASKS)
    return replace(own, views=views)


HELD_OUT = [every_preprocessing(task, patient) for task in TASKS for patient in range(50, 56)]


def test_the_figures_are_those_of_detectors_fitted_to_the_other_tasks(tmp_path: Path) -> None:
    training = draw_training(patients=8)
    found = leave_one_task_out([KNN(), ByTask(), OutputScore("entropy")], training, HELD_OUT)
    assert {name: set(own) for name, own in found.items()} == {
        name: set(TASKS) for name in ("knn", "by_task", "entropy")
    }
    for left_out in TASKS:
        knn = KNN()
        knn.fit([case for case in training if case.dataset != left_out])
        scores = [knn.score(image) for image in HELD_OUT]
        assert found["knn"][left_out] == roc_auc_score([image.dataset == left_out for image in HELD_OUT], scores)
        assert found["by_task"][left_out] > 0.9
    write_left_out(tmp_path / "left_out.json", found, {"run": "r"})
    rows = json.loads((tmp_path / "left_out.json").read_text())["auroc"]
    assert rows["knn"] == {"mean": sum(found["knn"].values()) / 3, "tasks": found["knn"]}
    console = Console(record=True, width=120)
    print_left_out(console, found)
    text = console.export_text()
    assert all(task in text for task in TASKS)


def test_a_detector_that_lacks_what_it_needs_and_a_single_task_are_left_out() -> None:
    training = draw_training(patients=4)
    bare = [
        replace(
            case,
            views=tuple(
                replace(view, layers={name: replace(kept, windows=None) for name, kept in view.layers.items()})
                for view in case.views
            ),
        )
        for case in training
    ]
    assert set(leave_one_task_out([MDPool(), KNN()], bare, HELD_OUT)) == {"knn"}
    alone = [case for case in training if case.dataset == "LiverCT"]
    assert leave_one_task_out([KNN()], alone, HELD_OUT) == {}
