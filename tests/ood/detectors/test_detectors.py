"""The contract of every detector, what breaks it, and how detectors choose layers and views."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from medmtl.errors import DataError
from medmtl.ood.detectors import SCORES, check_detector
from medmtl.ood.detectors.base import Detector, ViewDetector
from medmtl.ood.detectors.by_task import ByTask
from medmtl.ood.detectors.classifier import TaskClassifier
from medmtl.ood.detectors.distances import FRODO, KNN, Contrast, MDPool, PCAMahalanobis, ViM
from medmtl.ood.detectors.fusion import Fusion
from medmtl.ood.detectors.intensity import IntensityHistogram
from medmtl.ood.detectors.output import OutputScore, Volume
from medmtl.ood.detectors.spectral import Spectral
from medmtl.ood.detectors.synthetic import draw_evidence, draw_training
from medmtl.ood.evidence.output_scores import OUTPUT_SCORES

IN_LAYERS: dict[str, Callable[[], ViewDetector]] = {
    "spectral": Spectral,
    "spectral of one layer": lambda: Spectral(layers=["deep"], per_voxel=False),
    "spectral centred": lambda: Spectral(centre=True, norm="none"),
    "spectral whitened": lambda: Spectral(whitening=True, neighbour=2),
    "spectral medicood": lambda: Spectral(compat="medicood"),
    "md_pool": MDPool,
    "frodo": FRODO,
    "knn": KNN,
    "knn 3": lambda: KNN(neighbour=3),
    "contrast": Contrast,
    "pca_mahalanobis": PCAMahalanobis,
    "vim": ViM,
}
DETECTORS: dict[str, Callable[[], Detector]] = {
    **IN_LAYERS,
    "ihf": IntensityHistogram,
    "ihf whitened": lambda: IntensityHistogram(whitening=True),
    "ihf mahalanobis": lambda: IntensityHistogram(distance="mahalanobis"),
    "entropy": lambda: OutputScore("entropy"),
    "energy": lambda: OutputScore("energy"),
    "mutual_information": lambda: OutputScore("mutual_information"),
    "volume": Volume,
    "task_classifier": TaskClassifier,
    "fusion": lambda: Fusion(folds=3),
    "by_task": lambda: ByTask(detector=Fusion(folds=2)),
    "fusion mean": lambda: Fusion(combine="mean", members=[KNN(), OutputScore("energy"), Volume()]),
}
every_detector = pytest.mark.parametrize("make", DETECTORS.values(), ids=list(DETECTORS))


@pytest.fixture(scope="module")
def training():
    return draw_training()


@pytest.fixture(scope="module")
def familiar():
    return [draw_evidence(task, patient) for task in ("KidneyMR", "LiverCT", "LungPET") for patient in range(50, 54)]


@pytest.fixture(scope="module")
def shifted():
    return [
        draw_evidence(task, patient, noise=1.0, gain=1.5, doubt=3.0)
        for task in ("KidneyMR", "LiverCT", "LungPET")
        for patient in range(50, 54)
    ]


@every_detector
def test_a_detector_fulfils_the_contract(make) -> None:
    check_detector(make())


class Gain(Detector):
    """The mean square of a layer, divided by the training images' maximum."""

    name = "gain"
    reference = "a test"

    def __init__(self) -> None:
        self.maximum = 0.0

    def fit(self, cases) -> None:
        self.maximum = max(self.describe(case) for case in cases)

    def describe(self, image) -> float:
        return float(torch.trace(image.view.layers["deep"].gram))

    def score(self, image) -> float:
        return self.describe(image) / self.maximum

    def missing(self, image) -> str:
        return "" if "deep" in image.view.layers else "layer deep"

    def state_dict(self):
        return {"maximum": self.maximum}

    def load_state_dict(self, state) -> None:
        self.maximum = state["maximum"]


class Reversed(Gain):
    def score(self, image) -> float:
        return -super().score(image)


class Forgetful(Gain):
    def load_state_dict(self, state) -> None:
        self.maximum = 1.0


class WithObjects(Gain):
    def state_dict(self):
        return {"maximum": object()}


class Unsteady(Gain):
    def fit(self, cases) -> None:
        super().fit(cases)
        self.maximum += float(torch.rand(()))


class Silent(Gain):
    def missing(self, image) -> str:
        return ""


class Unserved(Gain):
    def missing(self, image) -> str:
        return "thumbnail" if image.thumbnail is None else ""


class Unreferenced(Gain):
    reference = ""


def test_a_detector_of_ones_own_fulfils_the_contract_and_gets_a_label_from_its_name() -> None:
    check_detector(Gain())
    assert (Gain().quantity.label, Gain().quantity.axis) == ("Gain", "Gain")


@pytest.mark.parametrize(
    ("kind", "promise"),
    [
        (Reversed, "scores shifted images higher than held-out ones"),
        (Forgetful, "scores the same after its state was saved and loaded"),
        (WithObjects, "has a state of text, numbers and tensors"),
        (Unsteady, "leaves the global random numbers"),
        (Silent, "names layer deep in `missing` before it fails"),
        (Unserved, "is served what it needs"),
        (Unreferenced, "has a label and a reference"),
    ],
)
def test_a_broken_promise_is_named(kind: type[Detector], promise: str) -> None:
    with pytest.raises(AssertionError, match=f"{kind.__name__} breaks its contract: a detector {promise}"):
        check_detector(kind())


def test_the_built_in_scores_are_described() -> None:
    assert set(OUTPUT_SCORES) < set(SCORES)
    assert SCORES["entropy"].axis == "mean entropy over the predicted foreground (nats)"
    assert SCORES["ihf_whitened"].label == "IHF, whitened"
    assert [name for name, score in SCORES.items() if score.role == "paper"] == ["spectral_published"]
    assert {name for name, score in SCORES.items() if not score.needs_network} == {"ihf", "ihf_whitened", "volume"}
    assert OutputScore("energy", name="mine").quantity == replace(SCORES["energy"], key="mine")
    assert all(json.loads(json.dumps(score.description()))["axis"] == score.axis for score in SCORES.values())
    assert OutputScore("of_ones_own").quantity.label == "Of ones own"


@pytest.mark.parametrize("make", [Spectral, KNN])
def test_no_training_image_is_an_error(make) -> None:
    with pytest.raises(DataError, match="no training image"):
        make().fit([])


@pytest.mark.parametrize("kind", [Spectral, MDPool, KNN, ViM])
def test_a_layer_that_no_image_has_is_named_before_and_when_fitting(kind, training) -> None:
    detector = kind(layers=["deep", "bottom"])
    assert detector.missing(training[0]) == ("windows of layer bottom" if kind is MDPool else "layer bottom") or (
        detector.missing(training[0]) == "layer bottom"
    )
    with pytest.raises(DataError, match=rf"detector {detector.name}: .* has no .*layer bottom"):
        detector.fit(training)


@pytest.mark.parametrize("kind", [FRODO, Spectral])
def test_by_default_every_layer_counts(kind, training, familiar) -> None:
    together = kind()
    together.fit(training)
    alone = [kind(layers=[layer]) for layer in ("shallow", "middle", "deep")]
    for detector in alone:
        detector.fit(training)
    for image in familiar:
        mean = sum(detector.score(image) for detector in alone) / 3
        assert together.score(image) == pytest.approx(mean, rel=1e-9)


def test_windows_are_asked_for(training) -> None:
    kept = training[0].view.layers["deep"]
    image = replace(
        training[0],
        views=(replace(training[0].view, layers={"deep": replace(kept, windows=None)}),),
    )
    assert MDPool(layers=["deep"]).missing(image) == "windows of layer deep"
    assert MDPool().missing(image) == "windows of a layer"
    assert not FRODO().missing(image)


@pytest.mark.parametrize("output", ["entropy", "max_softmax", "max_logit", "energy", "mutual_information"])
def test_a_missing_output_is_named(output, training) -> None:
    image = replace(training[0], views=(replace(training[0].view, outputs={}),))
    assert OutputScore(output).missing(image) == f"output {output}"
    assert Volume().missing(image) == "output volume_ml"
    assert ViM().missing(image) == "output max_logit"


def test_the_minimum_over_preprocessings_counts(training, familiar, shifted) -> None:
    own, other = familiar[0], shifted[5]
    both = replace(own, views=(other.view, own.view), chosen=1)
    for make in DETECTORS.values():
        detector = make()
        if isinstance(detector, ViewDetector):
            detector.fit(training)
            assert detector.score(both) == min(detector.score_view(view) for view in both.views)
