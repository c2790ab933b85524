"""Fusion: cross-fitting by patient, standardised scores, and what each combination does."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from medmtl.errors import ConfigError, DataError
from medmtl.ood.detectors.base import Detector
from medmtl.ood.detectors.distances import KNN
from medmtl.ood.detectors.fusion import Fusion
from medmtl.ood.detectors.intensity import IntensityHistogram
from medmtl.ood.detectors.output import OutputScore
from medmtl.ood.detectors.spectral import Spectral
from medmtl.ood.detectors.synthetic import draw_evidence, draw_training
from medmtl.ood.evidence.evidence import Evidence


class Told(Detector):
    """Scores what the output of that name says, and remembers which images it was fitted to."""

    source = "a test"
    fits: list[list[str]]

    def __init__(self, name: str) -> None:
        self.name = name
        self.fits = []

    def __deepcopy__(self, memo: object) -> "Told":
        return self

    def fit(self, cases: Sequence[Evidence]) -> None:
        self.fits.append([case.patient for case in cases])

    def score(self, image: Evidence) -> float:
        return image.view.outputs[self.name]

    def state_dict(self):
        return {}

    def load_state_dict(self, state) -> None:
        pass


def told(patient: str, **outputs: float) -> Evidence:
    image = draw_evidence("A", 0)
    return replace(image, patient=patient, views=(replace(image.view, outputs=outputs),))


def test_nobody_is_scored_by_members_that_know_the_patient() -> None:
    cases = [told(f"p{number % 7}", a=1.0 + number) for number in range(14)]
    member = Told("a")
    Fusion(members=[member], folds=3).fit(cases)
    *crossed, whole = member.fits
    assert len(crossed) == 3
    assert sorted(whole) == sorted(case.patient for case in cases)
    left_out = [set(whole) - set(fit) for fit in crossed]
    assert set().union(*left_out) == set(whole)
    assert sum(len(patients) for patients in left_out) == 7


@pytest.mark.parametrize("combine", ["mean", "max", "fisher"])
def test_scores_are_combined_as_z_of_logarithms(combine) -> None:
    a = [0.5, 1.0, 2.0, 4.0, 8.0]
    b = [-3.0, -2.0, -1.0, 0.0, 1.0]  # not all above 0: taken as they are
    fusion = Fusion(members=[Told("a"), Told("b")], combine=combine)
    fusion.fit([told(f"p{number}", a=x, b=y) for number, (x, y) in enumerate(zip(a, b, strict=True))])
    z = [(math.log(20) - math.log(2)) / (1.4826 * math.log(2)), (3 - -1) / 1.4826]
    expected = {
        "mean": sum(z) / 2,
        "max": max(z),
        "fisher": sum(math.log1p(math.exp(1.702 * each)) for each in z) / 2,
    }
    assert fusion.score(told("q", a=20.0, b=3.0)) == pytest.approx(expected[combine], rel=1e-9)


def test_a_member_that_sees_nothing_does_not_outvote_one_that_does() -> None:
    cases = [told(f"p{number}", a=1.0 + number, b=3.0 + number) for number in range(9)]
    blind, shifted = told("q", a=0.001, b=50.0), told("q", a=9.0, b=11.0)
    scores = {}
    for combine in ("mean", "fisher"):
        fusion = Fusion(members=[Told("a"), Told("b")], combine=combine)
        fusion.fit(cases)
        scores[combine] = fusion.score(blind), fusion.score(shifted)
    assert scores["mean"][0] < scores["mean"][1]
    assert scores["fisher"][0] > scores["fisher"][1]


def test_scores_that_are_all_alike_do_no_harm() -> None:
    fusion = Fusion(members=[Told("a"), Told("b")])
    fusion.fit([told(f"p{number}", a=1.0 + number, b=0.0) for number in range(6)])
    assert fusion.score(told("q", a=3.0, b=0.0)) < fusion.score(told("q", a=30.0, b=0.0)) < math.inf


def test_it_sees_a_shift_of_features_alone_and_of_intensities_alone() -> None:
    training = draw_training()
    familiar = [draw_evidence(task, patient) for task in ("KidneyMR", "LiverCT") for patient in range(50, 58)]
    fusion = Fusion()
    fusion.fit(training)
    highest = max(fusion.score(image) for image in familiar)
    for image in familiar:
        noisy = draw_evidence(image.dataset, int(image.case.split("_")[1]), noise=1.0)
        features = replace(image.view, layers=noisy.view.layers)
        intensities = replace(image.view, histogram=draw_evidence("BrainMR", 3).view.histogram)
        for view in (features, intensities):
            assert fusion.score(replace(image, views=(view,))) > highest


def test_it_sees_another_task_from_few_patients() -> None:
    fusion = Fusion(folds=3)
    fusion.fit(draw_training(patients=5))
    familiar = [draw_evidence(task, patient) for task in ("KidneyMR", "LiverCT") for patient in range(50, 58)]
    foreign = [draw_evidence(task, patient) for task in ("BrainMR", "HeartUS") for patient in range(50, 58)]
    assert max(fusion.score(image) for image in familiar) < min(fusion.score(image) for image in foreign)


def test_the_member_that_lacks_something_says_what() -> None:
    image = told("q", entropy=0.1)
    assert Fusion(members=[KNN(layers=["bottom"]), OutputScore("energy")]).missing(image) == "layer bottom"
    assert Fusion(members=[KNN(), OutputScore("energy")]).missing(image) == "output energy"
    with pytest.raises(DataError, match=r"detector fusion: training image .* has no output energy"):
        Fusion(members=[OutputScore("energy")]).fit([image])


def test_what_cannot_be_fused_is_refused() -> None:
    with pytest.raises(ConfigError, match="each a name of its own"):
        Fusion(members=[KNN(), KNN(neighbour=2)])
    with pytest.raises(ConfigError, match="each a name of its own"):
        Fusion(members=[])
    with pytest.raises(ConfigError, match="folds 1"):
        Fusion(folds=1)
    with pytest.raises(DataError, match="needs two training patients"):
        Fusion(members=[IntensityHistogram(), Spectral()]).fit([draw_evidence("A", 1)] * 3)
