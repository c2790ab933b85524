"""LayerDetector: the base of detectors that score each layer of the network separately."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from medmtl.errors import DataError
from medmtl.ood.detectors.base import Detector, ViewDetector
from medmtl.ood.evidence.evidence import Evidence, LayerEvidence, View

Fitted = dict[str, Tensor]


class LayerDetector(ViewDetector):
    """A detector that scores each layer separately; the score is the mean over the layers.

    Args:
        name: its key in tables and files.
        layers: which layers; None takes all that the evidence holds.
    """

    def __init__(self, name: str, layers: Sequence[str] | None = None) -> None:
        self.name = name
        self.layers = None if layers is None else list(layers)
        self.fitted: dict[str, Fitted] = {}

    @abstractmethod
    def fit_layer(self, maps: Sequence[LayerEvidence], tasks: Sequence[str]) -> Fitted:
        """Fit to one layer of the training images.

        Args:
            maps: that layer of each training image.
            tasks: the task of each.
        """

    @abstractmethod
    def score_layer(self, fitted: Fitted, features: LayerEvidence) -> float:
        """The score of an image in one layer; higher = more out-of-distribution."""

    def fit(self, cases: Sequence[Evidence]) -> None:
        """See `Detector.fit`.

        Raises:
            DataError: there is no training image, or one does not have what the detector needs.
        """
        require(self, cases)
        tasks = [case.dataset for case in cases]
        self.fitted = {
            layer: self.fit_layer([case.view.layers[layer] for case in cases], tasks)
            for layer in self._chosen(cases[0].view)
        }

    def score_view(self, view: View) -> float:
        """See `ViewDetector.score_view`."""
        scores = [self.score_layer(fitted, view.layers[layer]) for layer, fitted in self.fitted.items()]
        return sum(scores) / len(scores)

    def missing(self, image: Evidence) -> str:
        """See `Detector.missing`."""
        return missing_layers(image, self._wanted(image.view), windows=self.needs_windows)

    def state_dict(self) -> dict[str, Any]:
        """See `Detector.state_dict`."""
        return {"fitted": self.fitted}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Detector.load_state_dict`."""
        self.fitted = dict(state["fitted"])

    def _wanted(self, view: View) -> list[str]:
        """Layers that an image must have: those fitted, or those that a fit would take."""
        return list(self.fitted) or self._chosen(view)

    def _chosen(self, view: View) -> list[str]:
        if self.layers is not None:
            return self.layers
        return [layer for layer, kept in view.layers.items() if kept.windows is not None or not self.needs_windows]


def missing_layers(image: Evidence, layers: Sequence[str], windows: bool = False) -> str:
    """Which of some layers is missing in an image's evidence, in words; empty where it has all.

    Args:
        image: the image.
        layers: names of the layers.
        windows: whether the windows of each are needed too.
    """
    for view in image.views:
        if not layers:
            return "windows of a layer" if windows else "a layer of the network"
        for layer in layers:
            if layer not in view.layers:
                return f"layer {layer}"
            if windows and view.layers[layer].windows is None:
                return f"windows of layer {layer}"
    return ""


def missing_output(views: Iterable[View], output: str) -> str:
    """A score of the output in words, where some view does not have it; empty where all have it."""
    return "" if all(output in view.outputs for view in views) else f"output {output}"


def require(detector: Detector, cases: Sequence[Evidence]) -> None:
    """Check that a detector can be fitted to some images.

    Raises:
        DataError: there is none, or one does not have what the detector needs.
    """
    if not cases:
        raise DataError(f"detector {detector.name}: no training image to fit to", fix="add cases")
    for case in cases:
        missing = detector.missing(case)
        if missing:
            raise DataError(f"detector {detector.name}: training image {case.case} of {case.dataset} has no {missing}")


def layer_means(maps: Sequence[LayerEvidence]) -> Tensor:
    """Mean of each channel, `(images, C)` float64."""
    return torch.stack([features.mean for features in maps])
