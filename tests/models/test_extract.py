"""Observer: one pass of the network a preprocessing leaves what detectors need, and changes nothing."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.networks.nets import UNet

from medmtl.data.preprocessing import Preprocessing
from medmtl.models.extract import Observer, coarsest
from medmtl.models.sliding_window import VolumePredictor
from medmtl.ood.detectors.base import Detector
from medmtl.ood.detectors.by_task import ByTask
from medmtl.ood.detectors.classifier import TaskClassifier
from medmtl.ood.detectors.distances import KNN, MDPool
from medmtl.ood.detectors.fusion import Fusion
from medmtl.ood.evidence.evidence import Evidence
from medmtl.ood.evidence.features import FeatureTap

LAYERS = ["model.0", "model.1.submodule.0"]
PREPROCESSINGS = [Preprocessing((1, 1, 1), None), Preprocessing((2, 1, 1), (-160, 240))]


@pytest.fixture
def predictor(small_unet: Callable[[], UNet]) -> VolumePredictor:
    return VolumePredictor(small_unet(), (8, 8, 8), 0.25, 2)


def image_of(*shape: int) -> MetaTensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return MetaTensor(torch.rand(1, *shape, generator=generator) * 2 - 1, affine=np.diag([1.0, 1, 1, 1]))


def test_a_view_holds_what_a_pass_under_its_preprocessing_finds(predictor: VolumePredictor) -> None:
    images = {PREPROCESSINGS[0]: image_of(12, 9, 8), PREPROCESSINGS[1]: image_of(6, 9, 8)}
    native = image_of(10, 9, 8)
    with torch.no_grad():
        evidence, logits = Observer(predictor, LAYERS)(images, native, "Task", "one", "somebody")
        for view, (preprocessing, image) in zip(evidence.views, images.items(), strict=True):
            tap = FeatureTap(predictor.network, LAYERS)
            assert torch.equal(predictor.logits(image, tap), logits[preprocessing])
            assert view.preprocessing == str(preprocessing)
            for layer in LAYERS:
                assert torch.equal(view.layers[layer].gram, tap.per_voxel()[layer])
            voxels = int((torch.sigmoid(logits[preprocessing]) >= 0.5).sum())
            assert voxels > 0
            assert view.outputs["volume_ml"] == pytest.approx(voxels * preprocessing.spacing[0] / 1000)
            assert float(view.histogram.sum()) == pytest.approx(1)
    assert (evidence.dataset, evidence.case, evidence.patient, evidence.chosen) == ("Task", "one", "somebody", 0)
    assert evidence.thumbnail.shape == (32, 32, 32)


def test_the_network_passes_once_over_each_window(predictor: VolumePredictor) -> None:
    observer, image = Observer(predictor, LAYERS), image_of(8, 8, 20)
    passes: list[int] = []
    predictor.network.register_forward_hook(lambda module, inputs, output: passes.append(len(output)))
    with torch.no_grad():
        evidence, _ = observer({PREPROCESSINGS[0]: image}, image, "Task", "one", "one")
        windows = sum(passes)
        predictor(image)
    assert sum(passes) == 2 * windows
    assert len(evidence.view.layers[LAYERS[1]].windows) == windows  # type: ignore[arg-type]


def test_windows_are_kept_of_the_coarsest_layer_or_those_named(predictor: VolumePredictor) -> None:
    assert coarsest(predictor, LAYERS) == LAYERS[1]
    image = image_of(8, 8, 8)
    for pooled, kept in ((None, [LAYERS[1]]), ([], []), (LAYERS, LAYERS)):
        with torch.no_grad():
            evidence, _ = Observer(predictor, LAYERS, pooled)({PREPROCESSINGS[0]: image}, image, "Task", "one", "one")
        assert [name for name, layer in evidence.view.layers.items() if layer.windows is not None] == kept


@pytest.mark.parametrize(
    ("detector", "windows", "small"), [(KNN(), False, False), (MDPool(), True, False), (TaskClassifier(), False, True)]
)
def test_only_what_a_detector_needs_is_kept(
    predictor: VolumePredictor, detector: Detector, windows: bool, small: bool
) -> None:
    image = image_of(8, 8, 8)

    def seen(served: Detector) -> Evidence:
        with torch.no_grad():
            found, _ = Observer.serving(served, predictor, LAYERS)(
                {PREPROCESSINGS[0]: image}, image, "Task", "one", "one"
            )
        return found

    for served in (detector, ByTask(detector=Fusion(members=[KNN("other"), detector]))):
        evidence = seen(served)
        assert (evidence.view.layers[LAYERS[1]].windows is not None) == windows
        assert (evidence.thumbnail is not None) == small
        assert served.missing(evidence) == ""
        assert bool(served.missing(seen(KNN()))) == (windows or small)


def test_the_thumbnail_does_not_depend_on_how_the_axes_are_stored(predictor: VolumePredictor) -> None:
    image = image_of(10, 8, 9)
    turned = MetaTensor(image.as_tensor().flip(1), affine=np.diag([-1.0, 1, 1, 1]))
    with torch.no_grad():
        one, other = (
            Observer(predictor, LAYERS)({PREPROCESSINGS[0]: image}, native, "Task", "one", "one")[0]
            for native in (image, turned)
        )
    assert torch.equal(one.thumbnail, other.thumbnail)
