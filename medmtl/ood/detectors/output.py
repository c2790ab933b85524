"""Detectors that use the network's output only."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from medmtl.ood.detectors.base import Detector
from medmtl.ood.detectors.layers import missing_output, require
from medmtl.ood.evidence.evidence import Evidence
from medmtl.ood.evidence.output_scores import OUTPUT_SCORES
from medmtl.ood.score import OODScore, Role

# Volumes below a microlitre count as empty; few images cannot show a spread of less than 10 % of the volume.
LEAST_VOLUME = 1e-3
LEAST_SPREAD = 0.1


class OutputScore(Detector):
    """A score of the network's output under the preprocessing that fits best; nothing is fitted.

    Args:
        output: which score, see `medmtl.ood.evidence.output_scores`.
        name: its key in tables and files; by default that of the score.
    """

    def __init__(self, output: str, name: str | None = None) -> None:
        self.output = output
        self.name = name or output

    @property
    def quantity(self) -> OODScore:
        """See `Detector.quantity`: that of the output score."""
        return replace(OUTPUT_SCORES.get(self.output, super().quantity), key=self.name)

    def fit(self, cases: Sequence[Evidence]) -> None:
        """Nothing to fit."""

    def score(self, image: Evidence) -> float:
        """See `Detector.score`."""
        return image.view.outputs[self.output]

    def missing(self, image: Evidence) -> str:
        """See `Detector.missing`."""
        return missing_output([image.view], self.output)

    def state_dict(self) -> dict[str, Any]:
        """Nothing was fitted."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to load."""


class Volume(Detector):
    """Predicted volume of the organ, standardised by task; the score is the minimum over tasks.

    Both small and large count: |log v - mean| / standard deviation of the task's training predictions. (Vasiliuk et
    al. take quantiles, which few images do not give.)

    Args:
        name: its key in tables and files.
    """

    label = "Predicted volume"
    meaning = "deviation of log volume from the mean of the nearest task, in standard deviations"
    role: Role = "baseline"
    needs_network = False
    reference = "Vasiliuk et al., arXiv 2306.13528"

    def __init__(self, name: str = "volume") -> None:
        self.name = name
        self.fitted: dict[str, Tensor] = {}

    def fit(self, cases: Sequence[Evidence]) -> None:
        """See `Detector.fit`."""
        require(self, cases)
        tasks = sorted({case.dataset for case in cases})
        logs = [torch.stack([_log_volume(case) for case in cases if case.dataset == task]) for task in tasks]
        self.fitted = {
            "mean": torch.stack([each.mean() for each in logs]),
            "spread": torch.stack([each.std(correction=0) for each in logs]).clamp_min(LEAST_SPREAD),
        }

    def score(self, image: Evidence) -> float:
        """See `Detector.score`."""
        return float(((_log_volume(image) - self.fitted["mean"]).abs() / self.fitted["spread"]).min())

    def missing(self, image: Evidence) -> str:
        """See `Detector.missing`."""
        return missing_output([image.view], "volume_ml")

    def state_dict(self) -> dict[str, Any]:
        """See `Detector.state_dict`."""
        return {"fitted": self.fitted}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Detector.load_state_dict`."""
        self.fitted = dict(state["fitted"])


def _log_volume(image: Evidence) -> Tensor:
    volume = max(image.view.outputs["volume_ml"], LEAST_VOLUME)
    return torch.tensor(math.log(volume), dtype=torch.float64)
