"""The classifier of tasks: it learns them, doubts others, and is nothing with one task."""

import pytest
import torch

from medmtl.errors import DataError
from medmtl.ood.detectors.classifier import TaskClassifier
from medmtl.ood.detectors.synthetic import TASKS, draw_evidence, draw_training


def test_it_is_surer_of_its_tasks_than_of_others() -> None:
    detector = TaskClassifier()
    detector.fit(draw_training())
    familiar = [detector.score(draw_evidence(task, patient)) for task in TASKS for patient in range(50, 54)]
    foreign = [detector.score(draw_evidence(task, patient)) for task in ("Brain", "Heart") for patient in range(50, 54)]
    assert max(familiar) < 0.5
    assert sorted(familiar)[6] < sorted(foreign)[4]
    assert all(0 <= score <= 1 - 1 / len(TASKS) for score in familiar + foreign)


def test_with_one_task_alone_it_refuses() -> None:
    with pytest.raises(DataError, match="task_classifier: needs images of two tasks"):
        TaskClassifier().fit(draw_training(("KidneyMR",), patients=3))


def test_fitting_leaves_the_random_numbers_of_others_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    TaskClassifier().fit(draw_training(("KidneyMR", "LiverCT"), patients=2))
    assert torch.equal(torch.rand(4), expected)
