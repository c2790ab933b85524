"""Evidence: what detectors need of one forward pass over an image, small enough to keep for every case."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor


@dataclass(frozen=True)
class LayerEvidence:
    """What is kept of one layer's feature map, over all sliding windows, every voxel of the image counted once.

    Attributes:
        gram: F^T F / n of the map F as a matrix of n voxels by C channels, `(C, C)` float64.
        mean: mean of each channel, `(C,)` float64.
        voxels: n, the layer's voxels within the image.
        windows: the map of each sliding window pooled to few numbers, `(windows, P)` float32; None where not kept.
    """

    gram: Tensor
    mean: Tensor
    voxels: float
    windows: Tensor | None = None


@dataclass(frozen=True)
class View:
    """An image as one preprocessing prepares it.

    Attributes:
        preprocessing: which one, as text.
        layers: layer -> what is kept of its feature map.
        outputs: scores of the network's output, see `medmtl.ood.evidence.output_scores`; higher = more
            out-of-distribution.
        histogram: intensities of the prepared image, density in equal bins from its minimum to its maximum,
            `(bins,)` float64 that sums to 1.
        shape: descriptors of the predicted mask, see `medmtl.ood.evidence.shape`; empty for an empty mask, None where
            not kept.
    """

    preprocessing: str
    layers: Mapping[str, LayerEvidence]
    outputs: Mapping[str, float]
    histogram: Tensor
    shape: Mapping[str, float] | None = None

    @property
    def grams(self) -> dict[str, Tensor]:
        """Layer -> F^T F / n, what signatures are made of."""
        return {layer: kept.gram for layer, kept in self.layers.items()}


@dataclass(frozen=True)
class Evidence:
    """One image, under one preprocessing or several.

    Training images have one view, that of their task's preprocessing. Every other image has a view for each
    preprocessing of the model, since its task is not given.

    Attributes:
        dataset: the task, or the folder of images without a task.
        case: name within the dataset.
        patient: whose image it is.
        views: one a preprocessing.
        thumbnail: the image on its own grid, clipped to percentiles 0.5 and 99.5, scaled to [0, 1] and shrunk to
            `(32, 32, 32)` float32; None where not kept.
        chosen: index of the view that fits best, by the distance of the spectral signature; output scores are read
            from it.
    """

    dataset: str
    case: str
    patient: str
    views: tuple[View, ...]
    thumbnail: Tensor | None
    chosen: int = field(default=0)

    @property
    def view(self) -> View:
        """The view that fits best."""
        return self.views[self.chosen]

    def choosing(self, index: int) -> "Evidence":
        """The same image with another view as the one that fits best."""
        return replace(self, chosen=index)
