"""The verdict: the nearest task, an OOD score, and a threshold from held-out images that are scored in the same way."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch

from medmtl.errors import DataError, RunError
from medmtl.ood.conformal import ConformalRule, p_value
from medmtl.ood.detectors import SCORES
from medmtl.ood.detectors.base import Detector
from medmtl.ood.detectors.by_task import ByTask
from medmtl.ood.detectors.classifier import TaskClassifier
from medmtl.ood.detectors.distances import FRODO, KNN, Contrast, MDPool, PCAMahalanobis, ViM
from medmtl.ood.detectors.fusion import Fusion
from medmtl.ood.detectors.intensity import IntensityHistogram
from medmtl.ood.detectors.output import OutputScore, Volume
from medmtl.ood.detectors.spectral import Spectral
from medmtl.ood.detectors.synthetic import TASKS, draw_evidence, draw_training
from medmtl.ood.evidence.evidence import Evidence, LayerEvidence
from medmtl.ood.nearest import with_preprocessings
from medmtl.ood.signature import SignatureBank, signature
from medmtl.ood.verdict import CalibrationScore, ConformalDetector, Given

TRAINING = draw_training(patients=8)


def every_preprocessing(task: str, patient: int, **options: float) -> Evidence:
    """An image as all tasks' preprocessings prepare it: under another's preprocessing it is out-of-distribution."""
    own = draw_evidence(task, patient, **options)
    views = [
        own.view
        if other == task
        else replace(draw_evidence(task, patient, gain=3).view, preprocessing=f"preprocessing of {other}")
        for other in TASKS
    ]
    return replace(own, views=tuple(views))


def held_out(patients: int = 20) -> list[Evidence]:
    return [every_preprocessing(task, 100 + patient) for task in TASKS for patient in range(patients)]


def by_task() -> ByTask:
    return ByTask(detector=Fusion(members=[Spectral(), KNN()]))


@pytest.fixture(scope="module")
def ood_detector() -> ConformalDetector:
    return ConformalDetector.fit(by_task(), TRAINING, held_out(), alpha=0.05)


@pytest.mark.parametrize("task", TASKS)
def test_the_verdict_names_the_nearest_task(ood_detector: ConformalDetector, task: str) -> None:
    image = every_preprocessing(task, 300)
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
    assert set(verdict.scores) == {"by_task", "spectral", "spectral_published", "entropy", "max_softmax"}


def image_with(features: torch.Tensor, patient: int) -> Evidence:
    """An image with one layer, of some feature map of voxels by channels."""
    kept = LayerEvidence(features.T @ features / len(features), features.mean(0), len(features))
    drawn = draw_evidence("LiverCT", patient)
    return replace(drawn, views=(replace(drawn.view, layers={"layer": kept}),))


def test_the_published_score_is_the_distance_of_log_singular_values_of_the_feature_map() -> None:
    # Fields of view of different sizes: the published signature depends on it, ours does not.
    draw = torch.Generator().manual_seed(0)
    maps = [torch.randn(200 * (1 + number), 6, generator=draw, dtype=torch.float64) for number in range(8)]
    images = [image_with(features, number) for number, features in enumerate(maps)]
    fitted = ConformalDetector.fit(Spectral(), images[:5], images[5:7], alpha=0.5)
    logs = [torch.linalg.svdvals(features).log() for features in maps]
    signatures = [found / found.norm() for found in logs]
    expected = min(float((known - signatures[7]).norm()) for known in signatures[:5])
    again = ConformalDetector.from_state_dict(fitted.state_dict(), Spectral(), alpha=0.5)
    for detector in (fitted, again):
        scores = detector(images[7]).scores
        assert scores["spectral_published"] == pytest.approx(expected, abs=1e-9)
        assert scores["spectral"] != pytest.approx(expected, rel=0.1)
    assert SCORES["spectral_published"].label == "Spectral (as published)"
    assert [name for name, score in SCORES.items() if score.role == "paper"] == ["spectral_published"]


def test_signatures_of_a_checkpoint_keep_their_floor() -> None:
    draw = torch.Generator().manual_seed(0)
    scales = torch.logspace(0, -5, 6, dtype=torch.float64)
    images = [image_with(torch.randn(50, 6, generator=draw, dtype=torch.float64) * scales, n) for n in range(6)]
    earlier = ConformalDetector.fit(Spectral(floor=1e-6), images[:5], [], alpha=0.5)
    earlier.bank = SignatureBank.fit([("LiverCT", n.case, signature(n.view.grams, 1e-6)) for n in images[:5]], 1e-6)
    state = earlier.state_dict()
    for bank in (state["bank"], state["fitted"]["bank"]):
        del bank["floor"]  # of earlier versions, whose floor was one in a million
    del state["spectral_published"]
    found = ConformalDetector.from_state_dict(state, Spectral(), alpha=0.5)(images[5])
    assert found.score == pytest.approx(earlier(images[5]).scores["spectral"], abs=1e-12)
    assert set(found.scores) == {"spectral", "entropy", "max_softmax"}
    with pytest.raises(RunError, match="other options"):
        ConformalDetector.from_state_dict(state, Spectral(floor=1e-4), alpha=0.5)


def own_scores(detector: Detector, images: list[Evidence]) -> dict[str, list[float]]:
    """Task -> score of each image as one of its task."""
    found: dict[str, list[float]] = {task: [] for task in TASKS}
    for image in images:
        own = with_preprocessings(image, {f"preprocessing of {image.dataset}"})
        found[image.dataset].append(detector.score_as(own, image.dataset))
    return found


def test_the_decision_is_that_of_the_conformal_rule_on_the_score_of_the_detector(
    ood_detector: ConformalDetector,
) -> None:
    own = by_task()
    own.fit(TRAINING)
    scores = own_scores(own, held_out())
    for image in (every_preprocessing("LiverCT", 300), every_preprocessing("LiverCT", 301, noise=3.0)):
        verdict = ood_detector(image)
        assert verdict.p_value == max(p_value(own.score(image), found) for found in scores.values())
        assert verdict.rejected is (verdict.p_value <= 0.05)
    assert ood_detector(every_preprocessing("LiverCT", 301, noise=3.0)).rejected is True
    assert ood_detector(every_preprocessing("LiverCT", 300)).rejected is False
    assert ood_detector.rule.threshold == ConformalRule(scores, 0.05).threshold
    assert ood_detector.rule.promise == "each task"


def test_with_few_held_out_patients_left_out_training_images_join_them() -> None:
    ood_detector = ConformalDetector.fit(by_task(), TRAINING, held_out(patients=5), alpha=0.05)
    own = by_task()
    own.fit(TRAINING)
    kept = own_scores(own, held_out(patients=5))
    left_out: dict[str, list[float]] = {task: [] for task in TASKS}
    for case, score in zip(TRAINING, own.left_out_scores(TRAINING), strict=True):
        left_out[case.dataset].append(score)
    rule = ood_detector.rule
    assert (rule.scores, rule.training) == (kept, left_out)
    assert (rule.promise, rule.exact) == ("the mix of tasks", False)
    assert rule.decides  # 15 held-out patients alone could not
    assert ood_detector(every_preprocessing("LiverCT", 301, noise=3.0)).rejected is True
    # Of too few held-out images the correction cannot be estimated.
    few = ConformalDetector.fit(by_task(), TRAINING, held_out(patients=3), alpha=0.05)
    assert few(every_preprocessing("LiverCT", 301, noise=3.0)).rejected is None


def test_with_a_given_task_its_own_held_out_images_alone_count(ood_detector: ConformalDetector) -> None:
    own = by_task()
    own.fit(TRAINING)
    image = with_preprocessings(every_preprocessing("LungPET", 300), {"preprocessing of LungPET"})
    verdict = ood_detector(image, Given("task", ("LungPET",)))
    assert verdict.score == own.score_as(image, "LungPET")
    assert verdict.p_value == p_value(verdict.score, own_scores(own, held_out())["LungPET"])
    assert (verdict.task, verdict.rejected) == ("LungPET", False)
    wrong = ood_detector(
        with_preprocessings(every_preprocessing("LiverCT", 300), {"preprocessing of LungPET"}),
        Given("task", ("LungPET",)),
    )
    assert (wrong.task, wrong.rejected) == ("LungPET", True)


@pytest.mark.parametrize("patients", [5, 20])
def test_an_image_that_is_flagged_without_its_task_is_flagged_with_it(patients: int) -> None:
    ood_detector = ConformalDetector.fit(by_task(), TRAINING, held_out(patients), alpha=0.05)
    flagged = 0
    for patient in range(300, 320):
        image = every_preprocessing("LiverCT", patient, noise=0.2 * (patient - 300))
        untold = ood_detector(image)
        for task in TASKS:
            told = ood_detector(with_preprocessings(image, {f"preprocessing of {task}"}), Given("task", (task,)))
            assert told.p_value <= untold.p_value
            flagged += told.rejected is True and untold.rejected is True
    assert flagged > 20


def test_with_a_given_modality_images_of_the_same_modality_count(ood_detector: ConformalDetector) -> None:
    own = by_task()
    own.fit(TRAINING)
    same = ("KidneyMR", "LungPET")
    image = with_preprocessings(every_preprocessing("LungPET", 300), {f"preprocessing of {task}" for task in same})
    verdict = ood_detector(image, Given("modality", same))
    scores = own_scores(own, held_out())
    assert verdict.p_value == max(p_value(own.score(image), scores[task]) for task in same)
    assert verdict.task == "LungPET"


@pytest.mark.parametrize("reused", [False, True])
def test_whether_held_out_images_chose_the_checkpoint_is_kept(reused: bool) -> None:
    fitted = ConformalDetector.fit(Spectral(), TRAINING, held_out(), alpha=0.05, reused=reused)
    state = fitted.state_dict()
    again = ConformalDetector.from_state_dict(state, Spectral(), alpha=0.05)
    assert again.rule.exact is fitted.rule.exact is not reused
    del state["reused"]  # of an earlier version, which says nothing of it
    assert not ConformalDetector.from_state_dict(state, Spectral(), alpha=0.05).rule.exact


def test_held_out_images_above_the_threshold_are_listed(ood_detector: ConformalDetector) -> None:
    rejected = [each for each in ood_detector.held_out if ood_detector.rule.rejects(each.score)]
    assert sorted(ood_detector.above_threshold()) == sorted(rejected)


def test_the_rule_is_made_once_and_again_for_another_alpha(ood_detector: ConformalDetector) -> None:
    first = ood_detector.rule
    assert ood_detector.rule is first
    before, ood_detector.alpha = ood_detector.alpha, 0.2
    assert ood_detector.rule.alpha == 0.2
    assert ood_detector.rule.threshold <= first.threshold
    ood_detector.alpha = before
    assert ood_detector.rule == first


def test_the_task_of_an_image_is_not_used(ood_detector: ConformalDetector) -> None:
    image = every_preprocessing("LiverCT", 300)
    other = replace(image, dataset="somewhere", case="x", patient="y")
    assert ood_detector(image).scores == ood_detector(other).scores
    assert ood_detector(image).p_value == ood_detector(other).p_value


@pytest.mark.parametrize("detector", [by_task(), Spectral(), OutputScore("entropy")])
def test_a_detector_is_the_same_after_saving(detector: Detector) -> None:
    ood_detector = ConformalDetector.fit(detector, TRAINING, held_out(), alpha=0.05)
    again = ConformalDetector.from_state_dict(ood_detector.state_dict(), detector, alpha=0.05)
    for image in (every_preprocessing("LiverCT", 300), every_preprocessing("LungPET", 301, noise=1.0)):
        one, other = ood_detector(image), again(image)
        assert (one.scores, one.p_value, one.task) == (other.scores, other.p_value, other.task)
    assert (again.held_out, again.training) == (ood_detector.held_out, ood_detector.training)
    assert isinstance(again.held_out[0], CalibrationScore)


def test_a_detector_that_cannot_be_fitted_is_replaced_by_the_signature_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    few = [case for case in TRAINING if case.dataset == "LiverCT"][:1]
    ood_detector = ConformalDetector.fit(by_task(), few, [], alpha=0.05)
    assert "the spectral signature is used instead" in caplog.text
    verdict = ood_detector(every_preprocessing("LiverCT", 300))
    assert (verdict.detector, verdict.task, verdict.rejected) == ("spectral", "LiverCT", None)
    again = ConformalDetector.from_state_dict(ood_detector.state_dict(), by_task(), alpha=0.05)
    assert again(every_preprocessing("LiverCT", 300)).scores == verdict.scores


DETECTORS = [
    Spectral(),
    Spectral(whitening=True),
    Spectral("other"),
    KNN(),
    KNN(neighbour=3),
    Contrast(),
    FRODO(),
    MDPool(),
    PCAMahalanobis(),
    ViM(),
    IntensityHistogram(),
    TaskClassifier(),
    Volume(),
    OutputScore("entropy"),
    OutputScore("energy", "entropy"),
    Fusion(members=[Spectral(), KNN()]),
    Fusion(members=[Spectral(), Contrast()]),
    Fusion(members=[Spectral(), KNN()], combine="max"),
    by_task(),
    ByTask(detector=Fusion(members=[Spectral(), KNN(neighbour=2)])),
    ByTask(detector=KNN()),
]


@pytest.fixture(scope="module")
def states() -> list[dict[str, Any]]:
    """State of each of `DETECTORS`, fitted to half of the training images."""
    half = [case for case in TRAINING if case.patient[-1] in "1234"]
    fitted = (ConformalDetector.fit(each, half, [], alpha=0.05) for each in DETECTORS)
    return [each.state_dict() for each in fitted]


def refusal(state: Mapping[str, Any], detector: Detector, image: Evidence) -> str:
    """What is said if a state is not this detector's; nothing if it scores an image."""
    try:
        ConformalDetector.from_state_dict(state, detector, alpha=0.05)(image)
    except RunError as error:
        return str(error)
    return ""


def test_the_state_of_another_detector_is_refused(states: list[dict[str, Any]]) -> None:
    image = every_preprocessing("LiverCT", 300)
    for row, state in enumerate(states):
        for column, detector in enumerate(DETECTORS):
            assert ("medmtl calibrate" in refusal(state, detector, image)) == (row != column), (row, column)


def test_the_state_of_another_detector_in_an_earlier_version_is_refused_or_used(states: list[dict[str, Any]]) -> None:
    image = every_preprocessing("LiverCT", 300)
    for row, state in enumerate(states):
        earlier = {key: value for key, value in state.items() if key != "configured"}
        for column, detector in enumerate(DETECTORS):
            said = refusal(earlier, detector, image)
            assert not said or (row != column and "medmtl calibrate" in said), (row, column)


def test_options_that_another_version_did_not_have_are_no_difference() -> None:
    state = ConformalDetector.fit(KNN(), TRAINING, [], alpha=0.05).state_dict()
    del state["configured"]["options"]["neighbour"]
    assert ConformalDetector.from_state_dict(state, KNN(), alpha=0.05).detector.name == "knn"


def test_without_a_preprocessing_of_a_task_there_is_no_verdict(ood_detector: ConformalDetector) -> None:
    image = draw_evidence("LiverCT", 300)
    with pytest.raises(DataError, match="prepared with no preprocessing"):
        ood_detector(replace(image, views=(replace(image.view, preprocessing="other"),)))
