"""Detectors that look at the network's layers one by one."""

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
    """A detector that judges each layer by itself; the score is the mean over the layers.

    Args:
        name: how tables and files call it.
        layers: which layers; None takes all that the evidence holds.
    """

    def __init__(self, name: str, layers: Sequence[str] | None = None) -> None:
        self.name = name
        self.layers = None if layers is None else list(layers)
        self.fitted: dict[str, Fitted] = {}

    @abstractmethod
    def fit_layer(self, maps: Sequence[LayerEvidence], tasks: Sequence[str]) -> Fitted:
        """What is familiar in one layer.

        Args:
            maps: that layer of each training image.
            tasks: the task of each.
        """

    @abstractmethod
    def score_layer(self, fitted: Fitted, features: LayerEvidence) -> float:
        """How foreign an image is to one layer; higher = more foreign."""

    def fit(self, cases: Sequence[Evidence]) -> None:
        """See `Detector.fit`.

        Raises:
            DataError: there is no training image, or one lacks what the detector needs.
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
        return lacking_layers(image, self._wanted(image.view), windows=self.needs_windows)

    def state_dict(self) -> dict[str, Any]:
        """See `Detector.state_dict`."""
        return {"fitted": self.fitted}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Detector.load_state_dict`."""
        self.fitted = dict(state["fitted"])

    def _wanted(self, view: View) -> list[str]:
        """Layers to look for in an image: those fitted, or those that a fit would take."""
        return list(self.fitted) or self._chosen(view)

    def _chosen(self, view: View) -> list[str]:
        if self.layers is not None:
            return self.layers
        return [layer for layer, kept in view.layers.items() if kept.windows is not None or not self.needs_windows]


def lacking_layers(image: Evidence, layers: Sequence[str], windows: bool = False) -> str:
    """Which of some layers an image's evidence lacks, in words; empty where it has them.

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


def lacking_output(views: Iterable[View], output: str) -> str:
    """A score of the output in words, where some view lacks it; empty where all have it."""
    return "" if all(output in view.outputs for view in views) else f"output {output}"


def require(detector: Detector, cases: Sequence[Evidence]) -> None:
    """Check that a detector can be fitted to some images.

    Raises:
        DataError: there is none, or one lacks what the detector needs.
    """
    if not cases:
        raise DataError(f"detector {detector.name}: no training image to learn from", fix="add cases")
    for case in cases:
        lack = detector.missing(case)
        if lack:
            raise DataError(f"detector {detector.name}: training image {case.case} of {case.dataset} has no {lack}")


def layer_means(maps: Sequence[LayerEvidence]) -> Tensor:
    """Mean of each channel, `(images, C)` float64."""
    return torch.stack([features.mean for features in maps])
