"""A detector for every task: what is ordinary in a varied task may be foreign to a uniform one."""

from dataclasses import replace

import pytest

from medmtl.errors import DataError
from medmtl.ood.detectors.by_task import ByTask
from medmtl.ood.detectors.distances import KNN
from medmtl.ood.detectors.fusion import Fusion
from medmtl.ood.detectors.synthetic import draw_evidence, draw_training
from medmtl.ood.evidence.evidence import Evidence


def one_recipe(image: Evidence) -> Evidence:
    """As if all tasks prepared their images alike."""
    return replace(image, views=(replace(image.view, preprocessing="one"),))


def test_the_score_is_the_least_of_the_detectors_of_the_tasks() -> None:
    training = [one_recipe(case) for case in draw_training(("KidneyMR", "LiverCT"), patients=8)]
    image = one_recipe(draw_evidence("LiverCT", 50, noise=0.5))
    detector = ByTask(detector=Fusion(members=[KNN()]))
    detector.fit(training)
    alone = []
    for task in ("KidneyMR", "LiverCT"):
        own = [case for case in training if case.dataset == task]
        fusion = Fusion(members=[KNN()])
        fusion.fit(own)
        alone.append(fusion.score(image))
    assert detector.score(image) == min(alone)


def test_what_is_ordinary_in_a_varied_task_is_foreign_to_a_uniform_one() -> None:
    def drawn(task: str, patients: range, spread: float) -> list:
        return [one_recipe(draw_evidence(task, patient, gain=1 + spread * (patient % 5))) for patient in patients]

    training = drawn("KidneyMR", range(20), 0.0) + drawn("LiverCT", range(20), 0.25)
    uniform = drawn("KidneyMR", range(50, 60), 0.0)
    varied = drawn("LiverCT", range(50, 60), 0.25)
    foreign = [one_recipe(draw_evidence("KidneyMR", patient, gain=1.5)) for patient in range(60, 70)]
    by_task = ByTask(detector=Fusion(members=[KNN()]))
    by_task.fit(training)
    found = [by_task.score(image) for image in foreign]
    assert sorted(by_task.score(image) for image in uniform + varied)[-2] < min(found)


def test_a_task_whose_recipe_is_not_there_has_no_say() -> None:
    detector = ByTask(detector=Fusion(members=[KNN()]))
    detector.fit(draw_training(("KidneyMR", "LiverCT"), patients=6))
    alone = Fusion(members=[KNN()])
    alone.fit(draw_training(("KidneyMR",), patients=6))
    image = draw_evidence("KidneyMR", 50)
    assert detector.score(image) == alone.score(image)
    with pytest.raises(DataError, match="prepared with no preprocessing"):
        detector.score(one_recipe(image))


def test_a_task_of_one_patient_is_refused_in_one_line() -> None:
    training = draw_training(("KidneyMR",), patients=4) + draw_training(("LiverCT",), patients=1)
    with pytest.raises(DataError, match="fusion: needs two training patients"):
        ByTask().fit(training)
