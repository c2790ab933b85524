"""Intensity histograms of an image, and the detector that compares them without a network."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from medmtl.ood.detectors.base import ViewDetector
from medmtl.ood.detectors.distances import kth_distance
from medmtl.ood.detectors.gaussian import fit_gaussian, mahalanobis, principal_axes, spread, task_means
from medmtl.ood.detectors.layers import Fitted, require
from medmtl.ood.evidence.evidence import Evidence, View
from medmtl.ood.score import Role

BINS = 150
WINDOW = (-1.0, 1.0)


def intensity_histogram(image: Tensor, window: bool) -> Tensor:
    """Intensity histogram feature (Vasiliuk et al., arXiv 2306.13528).

    Args:
        image: as a preprocessing prepares it, any shape.
        window: the preprocessing clips to a window, which it scales to [-1, 1]: the bins then cover that. Otherwise
            they run from the image's minimum to its maximum.

    Returns:
        Share of voxels in 150 equal bins, `(150,)` float64 that sums to 1. A constant image fills the first bin.
    """
    values = image.detach().as_subclass(Tensor).reshape(-1).double().cpu()
    low, high = WINDOW if window else (float(values.min()), float(values.max()))
    if low == high:
        return torch.eye(1, BINS, dtype=torch.float64)[0]
    return torch.histc(values.clamp(low, high), BINS, low, high) / values.numel()


class IntensityHistogram(ViewDetector):
    """Intensity histogram features (IHF): the baseline without a network.

    Histograms are reduced by PCA, and compared with the nearest training image or by the Mahalanobis distance from the
    nearest task's mean (with the covariance of Ledoit & Wolf, since there are few training images).

    Args:
        name: its key in tables and files.
        distance: `nearest` or `mahalanobis`.
        variance: share of the variance that the components keep, in (0, 1).
        whitening: first divide each bin by its spread within tasks, so that bins with few voxels have the same weight.
    """

    reference = "Vasiliuk et al., arXiv 2306.13528"
    meaning = "distance of intensity histograms from the training images"
    role: Role = "baseline"
    needs_network = False

    def __init__(
        self,
        name: str = "ihf",
        distance: Literal["nearest", "mahalanobis"] = "nearest",
        variance: float = 0.9999,
        whitening: bool = False,
    ) -> None:
        self.name = name
        self.label = "IHF, whitened" if whitening else "Intensity histogram (IHF)"
        self.compares = "intensities, rare ones as much as common ones," if whitening else "intensities"
        self.distance = distance
        self.variance = variance
        self.whitening = whitening
        self.fitted: Fitted = {}

    def fit(self, cases: Sequence[Evidence]) -> None:
        """See `Detector.fit`."""
        require(self, cases)
        tasks = [case.dataset for case in cases]
        histograms = torch.stack([case.view.histogram for case in cases])
        scale = spread(task_means(histograms, tasks)[1]) if self.whitening else torch.ones_like(histograms[0])
        axes, origin = principal_axes(histograms / scale, self.variance)
        self.fitted = {"axes": axes, "origin": origin, "bins": scale}
        reduced = self._reduced(histograms)
        self.fitted |= {"bank": reduced} if self.distance == "nearest" else fit_gaussian(reduced, tasks)

    def score_view(self, view: View) -> float:
        """See `ViewDetector.score_view`."""
        reduced = self._reduced(view.histogram)
        if self.distance == "nearest":
            return kth_distance(self.fitted["bank"], reduced, neighbour=1)
        return float(mahalanobis(self.fitted, reduced[None]).min())

    def state_dict(self) -> dict[str, Any]:
        """See `Detector.state_dict`."""
        return {"fitted": self.fitted}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Detector.load_state_dict`."""
        self.fitted = dict(state["fitted"])

    def _reduced(self, histograms: Tensor) -> Tensor:
        """Principal components of histograms `(..., bins)`."""
        return (histograms / self.fitted["bins"] - self.fitted["origin"]) @ self.fitted["axes"].T
