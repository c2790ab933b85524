"""Observer: collects the evidence for all detectors from an image, with one forward pass a preprocessing."""

from collections.abc import Mapping, Sequence

import torch
from monai.data import MetaTensor
from monai.transforms import Orientation

from medmtl.data.preprocessing import Preprocessing
from medmtl.models.channels import input_channels
from medmtl.models.sliding_window import VolumePredictor
from medmtl.ood.detectors.base import Detector
from medmtl.ood.detectors.classifier import thumbnail
from medmtl.ood.detectors.intensity import intensity_histogram
from medmtl.ood.evidence.evidence import Evidence, View
from medmtl.ood.evidence.features import FeatureTap
from medmtl.ood.evidence.output_scores import OUTPUT_SCORES
from medmtl.ood.evidence.shape import describe_mask
from medmtl.quantity import CUBIC_MM


class Observer:
    """Runs images through a network and collects the evidence that detectors need.

    Args:
        predictor: the network and its sliding windows.
        layers: layers whose feature maps are summarised.
        pooled: those of them that are kept by window; the coarsest if None.
        thumbnails: whether to keep the image itself, downsampled.
    """

    def __init__(
        self,
        predictor: VolumePredictor,
        layers: Sequence[str],
        pooled: Sequence[str] | None = None,
        thumbnails: bool = True,
    ) -> None:
        self.predictor = predictor
        chosen = [coarsest(predictor, layers)] if pooled is None else pooled
        self.tap = FeatureTap(predictor.network, layers, chosen)
        self.thumbnails = thumbnails

    @classmethod
    def serving(cls, detector: Detector, predictor: VolumePredictor, layers: Sequence[str]) -> "Observer":
        """An observer of the evidence that a detector needs, and of the rest only where it costs nothing."""
        return cls(predictor, layers, None if detector.needs_windows else [], detector.needs_thumbnail)

    def __call__(
        self, images: Mapping[Preprocessing, MetaTensor], native: MetaTensor, dataset: str, case: str, patient: str
    ) -> tuple[Evidence, dict[Preprocessing, MetaTensor]]:
        """Observe one image.

        Args:
            images: preprocessing -> `(C, h, w, d)` in its working space.
            native: `(C, H, W, D)` on its own grid; the thumbnail shows the first channel.
            dataset: the task, or the folder of images without a task.
            case: name within the dataset.
            patient: whose image it is, for grouping.

        Returns:
            The evidence with a view a preprocessing, of which none is chosen yet; and preprocessing -> logits of its
            head, `(channels, h, w, d)`. Preprocessings that differ in their head alone share a pass of the network.
        """
        device = next(self.predictor.network.parameters()).device
        views, logits = {}, {}
        for same in dict.fromkeys(preprocessing.image for preprocessing in images):
            together = [preprocessing for preprocessing in images if preprocessing.image == same]
            image = images[together[0]]
            self.tap.reset()
            found = self.predictor.logits_of(image.to(device), [each.head for each in together], self.tap)
            layers = self.tap.evidence()
            histogram = intensity_histogram(image, window=same.window is not None)
            for preprocessing, own in zip(together, found, strict=True):
                logits[preprocessing] = own
                probability = self.predictor.probability(own, preprocessing.head).as_tensor()
                views[preprocessing] = View(
                    preprocessing=str(preprocessing),
                    layers=layers,
                    outputs=output_scores(probability, preprocessing),
                    histogram=histogram,
                    shape=describe_mask(probability[0], image.as_tensor()[0], preprocessing.spacing),
                )
        small = thumbnail(Orientation("RAS", labels=None)(native[:1])) if self.thumbnails else None
        ordered = tuple(views[preprocessing] for preprocessing in images)
        return Evidence(dataset, case, patient, ordered, small), {each: logits[each] for each in images}


def coarsest(predictor: VolumePredictor, layers: Sequence[str]) -> str:
    """The layer whose feature map of a window has the fewest voxels, the first of several."""
    tap = FeatureTap(predictor.network, layers)
    like = next(predictor.network.parameters())
    shape = (1, input_channels(predictor.network), *predictor.patch_size)
    window = torch.zeros(shape, device=like.device, dtype=like.dtype)
    with torch.inference_mode(), tap.weighing([torch.ones(1, side) for side in predictor.patch_size]):
        predictor.network(window)
    return min(layers, key=lambda layer: tap.sizes[layer])


def output_scores(probability: torch.Tensor, preprocessing: Preprocessing) -> dict[str, float]:
    """Scores of an image's foreground probability `(1, h, w, d)` under a preprocessing, see `View.outputs`."""
    scores = {name: each.of_probability(probability) for name, each in OUTPUT_SCORES.items() if each.of_probability}
    voxel = torch.tensor(preprocessing.spacing, dtype=torch.float64).prod()
    return {**scores, "volume_ml": float((probability >= 0.5).sum() * voxel) / CUBIC_MM}
