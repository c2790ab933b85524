"""One detector per task: a score that is common in a varied task may be high in a uniform one."""

from dataclasses import replace

import numpy as np
import pytest

from medmtl.errors import DataError
from medmtl.ood.detectors.by_task import ByTask
from medmtl.ood.detectors.distances import KNN
from medmtl.ood.detectors.fusion import Fusion
from medmtl.ood.detectors.synthetic import draw_evidence, draw_training
from medmtl.ood.evidence.evidence import Evidence


def one_preprocessing(image: Evidence) -> Evidence:
    """As if all tasks prepared their images alike."""
    return replace(image, views=(replace(image.view, preprocessing="one"),))


def test_the_score_is_the_least_of_the_detectors_of_the_tasks() -> None:
    training = [one_preprocessing(case) for case in draw_training(("KidneyMR", "LiverCT"), patients=8)]
    image = one_preprocessing(draw_evidence("LiverCT", 50, noise=0.5))
    detector = ByTask(detector=Fusion(members=[KNN()]))
    detector.fit(training)
    alone = []
    for task in ("KidneyMR", "LiverCT"):
        own = [case for case in training if case.dataset == task]
        fusion = Fusion(members=[KNN()])
        fusion.fit(own)
        left_out = np.array(fusion.left_out_scores(own))
        distance = np.abs(left_out - np.median(left_out))
        spread = max(1.4826 * np.median(distance), left_out.std() / 2)
        alone.append((fusion.score(image) - np.median(left_out)) / spread)
    assert detector.score(image) == min(alone)


def test_the_scores_of_left_out_training_images_have_one_scale_in_all_tasks() -> None:
    training = draw_training(("KidneyMR", "LiverCT"), patients=11)
    detector = ByTask(detector=Fusion(members=[KNN()]))
    detector.fit(training)
    scores = np.array(detector.left_out_scores(training)).reshape(2, 11)
    assert np.median(scores, axis=1).tolist() == [0, 0]
    assert (np.median(np.abs(scores), axis=1) * 1.4826 <= 1 + 1e-9).all()


def test_an_outlier_of_a_uniform_task_is_detected_beside_a_varied_one() -> None:
    def drawn(task: str, patients: range, spread: float) -> list:
        return [
            one_preprocessing(draw_evidence(task, patient, gain=1 + spread * (patient % 5))) for patient in patients
        ]

    training = drawn("KidneyMR", range(20), 0.0) + drawn("LiverCT", range(20), 0.25)
    uniform = drawn("KidneyMR", range(50, 60), 0.0)
    varied = drawn("LiverCT", range(50, 60), 0.25)
    foreign = [one_preprocessing(draw_evidence("KidneyMR", patient, gain=1.5)) for patient in range(60, 70)]
    by_task = ByTask(detector=Fusion(members=[KNN()]))
    by_task.fit(training)
    found = [by_task.score(image) for image in foreign]
    assert sorted(by_task.score(image) for image in uniform + varied)[-2] < min(found)


def test_a_task_without_its_preprocessing_does_not_count() -> None:
    detector = ByTask(detector=Fusion(members=[KNN()]))
    detector.fit(draw_training(("KidneyMR", "LiverCT"), patients=6))
    alone = Fusion(members=[KNN()])
    alone.fit(draw_training(("KidneyMR",), patients=6))
    image = draw_evidence("KidneyMR", 50)
    centre, spread = detector.scale["KidneyMR"]
    assert detector.score(image) == (alone.score(image) - centre) / spread
    with pytest.raises(DataError, match="prepared with no preprocessing"):
        detector.score(one_preprocessing(image))


def test_a_task_of_one_patient_is_refused_in_one_line() -> None:
    training = draw_training(("KidneyMR",), patients=4) + draw_training(("LiverCT",), patients=1)
    with pytest.raises(DataError, match="fusion: needs two training patients"):
        ByTask().fit(training)


def test_an_image_of_a_known_task_costs_one_detector_however_many_tasks_there_are() -> None:
    training = [one_preprocessing(case) for case in draw_training(("KidneyMR", "LiverCT"), patients=6)]
    detector, image = ByTask(detector=Fusion(members=[KNN()])), one_preprocessing(draw_evidence("LiverCT", 50))
    detector.fit(training)
    expected = detector.task_scores(image)["LiverCT"]
    detector.tasks["KidneyMR"] = None  # type: ignore[assignment]
    assert detector.score_as(image, "LiverCT") == expected
    with pytest.raises(DataError, match="was not prepared with the preprocessing of LiverCT"):
        detector.score_as(draw_evidence("KidneyMR", 50), "LiverCT")
