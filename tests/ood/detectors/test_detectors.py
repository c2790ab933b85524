"""The contract that every detector keeps: higher on a known shift, the same after reloading, clear on what lacks."""

import io
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from medmtl.errors import DataError
from medmtl.ood.detectors.base import Detector, ViewDetector
from medmtl.ood.detectors.by_task import ByTask
from medmtl.ood.detectors.classifier import TaskClassifier
from medmtl.ood.detectors.distances import FRODO, KNN, Contrast, MDPool, PCAMahalanobis, ViM
from medmtl.ood.detectors.fusion import Fusion
from medmtl.ood.detectors.intensity import IntensityHistogram
from medmtl.ood.detectors.output import OutputScore, Volume
from medmtl.ood.detectors.spectral import Spectral
from medmtl.ood.detectors.synthetic import draw_evidence, draw_training, without_layer

IN_LAYERS: dict[str, Callable[[], ViewDetector]] = {
    "spectral": Spectral,
    "spectral of one layer": lambda: Spectral(layers=["deep"]),
    "spectral whole": lambda: Spectral(per_voxel=False),
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
    "max_softmax": lambda: OutputScore("max_softmax"),
    "max_logit": lambda: OutputScore("max_logit"),
    "energy": lambda: OutputScore("energy"),
    "mutual_information": lambda: OutputScore("mutual_information"),
    "pairwise_dice_distance": lambda: OutputScore("pairwise_dice_distance"),
    "volume": Volume,
    "task_classifier": TaskClassifier,
    "fusion": Fusion,
    "by_task": lambda: ByTask(detector=Fusion(folds=3)),
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
def test_a_shifted_image_scores_higher(make, training, familiar, shifted) -> None:
    detector = make()
    detector.fit(training)
    assert not detector.missing(familiar[0])
    pairs = [(detector.score(near), detector.score(far)) for near in familiar for far in shifted]
    auroc = sum(near < far for near, far in pairs) / len(pairs)
    assert auroc > 0.9, auroc


@every_detector
def test_fitting_and_scoring_again_give_the_same(make, training, familiar) -> None:
    one, two = make(), make()
    one.fit(training)
    torch.rand(3)
    two.fit(training)
    for image in familiar:
        assert one.score(image) == two.score(image) == one.score(image)


@every_detector
def test_a_detector_is_the_same_after_a_file(make, training, familiar, shifted) -> None:
    detector, again, file = make(), make(), io.BytesIO()
    detector.fit(training)
    torch.save(detector.state_dict(), file)
    file.seek(0)
    again.load_state_dict(torch.load(file, weights_only=True))
    for image in familiar + shifted:
        assert again.score(image) == detector.score(image)


@every_detector
def test_a_detector_has_a_name_and_a_source(make) -> None:
    detector = make()
    assert detector.name
    assert detector.reference


@pytest.mark.parametrize("make", IN_LAYERS.values(), ids=list(IN_LAYERS))
def test_a_missing_layer_is_named_in_one_line(make, training) -> None:
    detector = make()
    detector.fit(training)
    lack = detector.missing(without_layer(training[0], "deep"))
    assert "layer deep" in lack
    assert "\n" not in lack
    with pytest.raises(DataError, match="no training image"):
        make().fit([])


@pytest.mark.parametrize("kind", [Spectral, MDPool, FRODO, KNN, PCAMahalanobis, ViM])
def test_a_layer_that_no_image_has_is_named_before_and_when_fitting(kind, training) -> None:
    detector = kind(layers=["deep", "bottom"])
    assert detector.missing(training[0]) == ("windows of layer bottom" if kind is MDPool else "layer bottom") or (
        detector.missing(training[0]) == "layer bottom"
    )
    with pytest.raises(DataError, match=rf"detector {detector.name}: .* has no .*layer bottom"):
        detector.fit(training)


@pytest.mark.parametrize("kind", [FRODO, KNN, PCAMahalanobis, Spectral])
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


def test_of_several_recipes_the_one_that_fits_counts(training, familiar, shifted) -> None:
    own, other = familiar[0], shifted[5]
    both = replace(own, views=(other.view, own.view), chosen=1)
    for make in DETECTORS.values():
        detector = make()
        if isinstance(detector, ViewDetector):
            detector.fit(training)
            assert detector.score(both) == min(detector.score_view(view) for view in both.views)
