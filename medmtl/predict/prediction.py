"""Prediction: what a model says of a scan."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from medmtl.io.reader import Scan


@dataclass(frozen=True)
class Prediction:
    """What a model says of a scan.

    Attributes:
        mask: 1 is the organ, `(H, W, D)` uint8 on the image's own grid. It is the network's: scaling changes how sure
            it is, not what it finds.
        probability: of the organ, after the checkpoint's scaling, `(H, W, D)` float32 in [0, 1].
        affine: of the image, `(4, 4)` float64 from voxel indices to mm, right-anterior-superior.
        task: whose organ it is: the task that was told, or that the image looks most like.
        preprocessing: how that task prepares images, as text.
        in_distribution: whether the image is like those that the model was trained on; None if that cannot be decided.
        p_value: conformal, in (0, 1]; at most `alpha` where the image is not; None without an OOD detector.
        alpha: share of familiar images that may be rejected.
        nearest_task: the task that the image looks most like, or that was told; None without an OOD detector.
        ood_score: the score that decides, higher = more foreign; None without an OOD detector.
        scores: that and others, by name.
        volume_ml: of the mask.
        seconds: for resampling, inference and verdict.
        warnings: all that a user should know of file, verdict and mask, a sentence each.
        scan: what was segmented.
    """

    mask: np.ndarray
    probability: np.ndarray
    affine: np.ndarray
    task: str
    preprocessing: str
    in_distribution: bool | None
    p_value: float | None
    alpha: float
    nearest_task: str | None
    ood_score: float | None
    scores: Mapping[str, float]
    volume_ml: float
    seconds: Mapping[str, float]
    warnings: tuple[str, ...]
    scan: Scan

    def entropy(self) -> np.ndarray:
        """Entropy of every voxel, -p log p - (1 - p) log(1 - p) in nats, `(H, W, D)` float32, 0 to log 2."""
        p = torch.from_numpy(self.probability)
        return (torch.special.entr(p) + torch.special.entr(1 - p)).numpy()
