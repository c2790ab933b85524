"""The verdict: the task that an image looks most like, a score, and a threshold from images judged in the same way."""

from dataclasses import replace

import pytest
import torch

from medmtl.errors import DataError
from medmtl.ood.conformal import ConformalRule, p_value
from medmtl.ood.detectors.base import Detector
from medmtl.ood.detectors.by_task import ByTask
from medmtl.ood.detectors.distances import KNN
from medmtl.ood.detectors.fusion import Fusion
from medmtl.ood.detectors.output import OutputScore
from medmtl.ood.detectors.spectral import Spectral
from medmtl.ood.detectors.synthetic import TASKS, draw_evidence, draw_training
from medmtl.ood.evidence.evidence import Evidence
from medmtl.ood.signature import SignatureBank, signature
from medmtl.ood.verdict import ConformalDetector, Given, HeldOutScore, seen_as

TRAINING = draw_training(patients=8)
MODALITIES = {"KidneyMR": "MR", "LiverCT": "CT", "LungPET": "PET"}


def every_recipe(task: str, patient: int, **options: float) -> Evidence:
    """An image as all tasks' preprocessings prepare it: under another's preprocessing it looks foreign."""
    own = draw_evidence(task, patient, **options)
    views = [
        own.view
        if other == task
        else replace(draw_evidence(task, patient, gain=3).view, preprocessing=f"preprocessing of {other}")
        for other in TASKS
    ]
    return replace(own, views=tuple(views))


def held_out(patients: int = 20) -> list[Evidence]:
    return [every_recipe(task, 100 + patient) for task in TASKS for patient in range(patients)]


def by_task() -> ByTask:
    return ByTask(detector=Fusion(members=[Spectral(), KNN()]))


@pytest.fixture(scope="module")
def ood_detector() -> ConformalDetector:
    return ConformalDetector.fit(by_task(), TRAINING, held_out(), alpha=0.05, modalities=MODALITIES)


@pytest.mark.parametrize("task", TASKS)
def test_an_image_is_seen_as_the_task_that_it_looks_most_like(ood_detector: ConformalDetector, task: str) -> None:
    image = every_recipe(task, 300)
    verdict = ood_detector(image)
    assert (verdict.task, verdict.preprocessing) == (task, f"preprocessing of {task}")
    view = image.views[TASKS.index(task)]
    bank = SignatureBank.fit([(case.dataset, case.case, signature(case.view.grams)) for case in TRAINING])
    assert verdict.nearest == bank.nearest(signature(view.grams), tasks=[task])
    assert all(torch.equal(verdict.signature[layer], found) for layer, found in signature(view.grams).items())
    own = by_task()
    own.fit(TRAINING)
    assert verdict.score == verdict.scores["by_task"] == own.score(image)
    assert verdict.scores["spectral"] == min(bank.nearest(signature(view.grams)).oodm for view in image.views)
    assert {name: verdict.scores[name] for name in ("entropy", "max_softmax")} == {
        name: view.outputs[name] for name in ("entropy", "max_softmax")
    }
    assert set(verdict.scores) == {"by_task", "spectral", "entropy", "max_softmax"}


def test_the_decision_is_that_of_the_conformal_rule_on_the_score_that_decides(ood_detector: ConformalDetector) -> None:
    own = by_task()
    own.fit(TRAINING)
    scores = {task: [own.score(image) for image in held_out() if image.dataset == task] for task in TASKS}
    for image in (every_recipe("LiverCT", 300), every_recipe("LiverCT", 301, noise=3.0)):
        verdict = ood_detector(image)
        assert verdict.p_value == max(p_value(own.score(image), found) for found in scores.values())
        assert verdict.rejected is (verdict.p_value <= 0.05)
    assert ood_detector(every_recipe("LiverCT", 301, noise=3.0)).rejected is True
    assert ood_detector(every_recipe("LiverCT", 300)).rejected is False
    assert ood_detector.rule().threshold == ConformalRule(scores, 0.05).threshold


def test_a_told_task_judges_by_its_own_images_alone(ood_detector: ConformalDetector) -> None:
    own = by_task()
    own.fit(TRAINING)
    told = [
        own.score_as(seen_as(image, {"preprocessing of LungPET"}), "LungPET")
        for image in held_out()
        if image.dataset == "LungPET"
    ]
    image = seen_as(every_recipe("LungPET", 300), {"preprocessing of LungPET"})
    verdict = ood_detector(image, Given("task", ("LungPET",)))
    assert verdict.score == own.score_as(image, "LungPET")
    assert verdict.p_value == p_value(verdict.score, told)
    assert (verdict.task, verdict.rejected) == ("LungPET", False)
    wrong = ood_detector(
        seen_as(every_recipe("LiverCT", 300), {"preprocessing of LungPET"}), Given("task", ("LungPET",))
    )
    assert (wrong.task, wrong.rejected) == ("LungPET", True)


def test_a_told_task_of_few_patients_judges_together_with_the_others() -> None:
    ood_detector = ConformalDetector.fit(by_task(), TRAINING, held_out(patients=7), alpha=0.05, modalities=MODALITIES)
    rule = ood_detector.rule(Given("task", ("LungPET",)))
    assert rule.decides
    assert set(rule.scores) == set(TASKS)
    # 18 patients, and 19 are needed
    few = ConformalDetector.fit(
        by_task(), TRAINING, held_out(patients=6), alpha=0.05, modalities=MODALITIES
    )  # 18, and 19 are needed
    assert few(every_recipe("LiverCT", 301, noise=3.0)).rejected is None


def test_a_told_modality_judges_by_images_that_were_seen_in_the_same_way() -> None:
    alike = {**MODALITIES, "LungPET": "MR"}
    ood_detector = ConformalDetector.fit(by_task(), TRAINING, held_out(patients=12), alpha=0.05, modalities=alike)
    own = by_task()
    own.fit(TRAINING)
    kin = ("KidneyMR", "LungPET")
    preprocessings = {f"preprocessing of {task}" for task in kin}
    scores = {
        task: [own.score(seen_as(image, preprocessings)) for image in held_out(patients=12) if image.dataset == task]
        for task in kin
    }
    image = seen_as(every_recipe("LungPET", 300), preprocessings)
    verdict = ood_detector(image, Given("modality", kin))
    assert verdict.p_value == p_value(own.score(image), scores["KidneyMR"] + scores["LungPET"])
    assert verdict.task == "LungPET"


def test_the_task_of_an_image_is_not_looked_at(ood_detector: ConformalDetector) -> None:
    image = every_recipe("LiverCT", 300)
    other = replace(image, dataset="somewhere", case="x", patient="y")
    assert ood_detector(image).scores == ood_detector(other).scores
    assert ood_detector(image).p_value == ood_detector(other).p_value


@pytest.mark.parametrize("detector", [by_task(), Spectral(), OutputScore("entropy")])
def test_a_judge_is_the_same_after_saving(detector: Detector) -> None:
    ood_detector = ConformalDetector.fit(detector, TRAINING, held_out(), alpha=0.05, modalities=MODALITIES)
    again = ConformalDetector.from_state_dict(ood_detector.state_dict(), detector, alpha=0.05)
    for image in (every_recipe("LiverCT", 300), every_recipe("LungPET", 301, noise=1.0)):
        one, other = ood_detector(image), again(image)
        assert (one.scores, one.p_value, one.task) == (other.scores, other.p_value, other.task)
    assert again.held_out == ood_detector.held_out
    assert isinstance(again.held_out[0], HeldOutScore)


def test_a_detector_that_cannot_learn_is_replaced_by_the_signature_and_that_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    few = [case for case in TRAINING if case.dataset == "LiverCT"][:1]
    ood_detector = ConformalDetector.fit(by_task(), few, [], alpha=0.05, modalities=MODALITIES)
    assert "the spectral signature judges instead" in caplog.text
    verdict = ood_detector(every_recipe("LiverCT", 300))
    assert (verdict.detector, verdict.task, verdict.rejected) == ("spectral", "LiverCT", None)
    again = ConformalDetector.from_state_dict(ood_detector.state_dict(), by_task(), alpha=0.05)
    assert again(every_recipe("LiverCT", 300)).scores == verdict.scores


def test_without_a_recipe_of_its_tasks_there_is_no_verdict(ood_detector: ConformalDetector) -> None:
    image = draw_evidence("LiverCT", 300)
    with pytest.raises(DataError, match="prepared with no preprocessing"):
        ood_detector(replace(image, views=(replace(image.view, preprocessing="other"),)))
