"""Detectors that read what the network's output says, and nothing of how it came about."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from medmtl.ood.detectors.base import Detector
from medmtl.ood.detectors.layers import lacking_output, require
from medmtl.ood.evidence.evidence import Evidence

REFERENCES = {
    "entropy": "Mehrtash et al., arXiv 1911.13273; Karimi & Gholipour, arXiv 2004.06569",
    "max_softmax": "Hendrycks & Gimpel, arXiv 1610.02136",
    "max_logit": "Hendrycks et al., arXiv 1911.11132",
    "energy": "Liu et al., arXiv 2010.03759",
    "mutual_information": "Gal & Ghahramani, arXiv 1506.02142; Lakshminarayanan et al., arXiv 1612.01474",
    "pairwise_dice_distance": "Zenk et al., arXiv 2406.03323",
}

# Volumes below a drop are as good as none, and a spread of less than 10 % of the volume is not known from few images.
LEAST_VOLUME = 1e-3
LEAST_SPREAD = 0.1


class OutputScore(Detector):
    """A score of the network's output under the preprocessing that fits best; nothing is learned.

    Args:
        output: which score, see `medmtl.ood.evidence.output_scores`.
        name: how tables and files call it; by default as the score.
    """

    reference = "; ".join(REFERENCES.values())

    def __init__(self, output: str, name: str | None = None) -> None:
        self.output = output
        self.name = name or output

    def fit(self, cases: Sequence[Evidence]) -> None:
        """Nothing to learn."""

    def score(self, image: Evidence) -> float:
        """See `Detector.score`."""
        return image.view.outputs[self.output]

    def missing(self, image: Evidence) -> str:
        """See `Detector.missing`."""
        return lacking_output([image.view], self.output)

    def state_dict(self) -> dict[str, Any]:
        """Nothing was fitted."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to take."""


class Volume(Detector):
    """Predicted volume of the organ: how unusual it is for the task for which it is least unusual.

    Both small and large count: |log v - mean| / standard deviation of the task's training predictions. (Vasiliuk et
    al. take quantiles, which few images do not give.)

    Args:
        name: how tables and files call it.
    """

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
        return lacking_output([image.view], "volume_ml")

    def state_dict(self) -> dict[str, Any]:
        """See `Detector.state_dict`."""
        return {"fitted": self.fitted}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Detector.load_state_dict`."""
        self.fitted = dict(state["fitted"])


def _log_volume(image: Evidence) -> Tensor:
    volume = max(image.view.outputs["volume_ml"], LEAST_VOLUME)
    return torch.tensor(math.log(volume), dtype=torch.float64)
