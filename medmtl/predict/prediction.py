"""Prediction: mask, probability and OOD verdict of one scan."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from medmtl.io.reader import Scan


@dataclass(frozen=True)
class Prediction:
    """Mask, probability and OOD verdict of one scan.

    Attributes:
        mask: 1 is the organ, `(H, W, D)` uint8 on the image's own grid. Post-hoc scaling changes the
            probability, not the mask.
        probability: of the organ, after the checkpoint's scaling, `(H, W, D)` float32 in [0, 1].
        affine: of the image, `(4, 4)` float64 from voxel indices to mm, right-anterior-superior.
        task: whose organ it is: the given task, or the nearest one.
        preprocessing: of that task, as text.
        in_distribution: False: out-of-distribution; None: undecided.
        p_value: conformal, in (0, 1]; at most `alpha` for an OOD image; None without an OOD detector.
        alpha: share of in-distribution images that may be rejected.
        nearest_task: the nearest task by spectral signature, or the given one; None without an OOD detector.
        ood_score: of the detector that gives the verdict, higher = more out-of-distribution; None without one.
        scores: this and other scores, by name.
        mask_reliable: False: the mask is empty, of a volume that no training label comes near, or unlike that of the
            mirrored image; None: undecided, not checked, or that of an OOD image.
        mask_p_value: conformal, of the disagreement among acceptable held-out masks; None where not measured.
        mask_disagreement: 1 - Dice of the mask and that of the mirrored image, 0 to 1; None where not measured.
        reasons: what sets image and mask apart from the training images of the task, a clause each.
        nearest_image: the training image with the nearest signature, as `task/case`; None without an OOD detector.
        volume_ml: of the mask.
        expected_volume_ml: of the organ: the sum of the probability over all voxels, times a voxel's volume.
        seconds: spent on resampling, inference, verdict and scaling.
        warnings: about file, verdict and mask, a sentence each.
        scan: the input.
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
    mask_reliable: bool | None
    mask_p_value: float | None
    mask_disagreement: float | None
    reasons: tuple[str, ...]
    nearest_image: str | None
    volume_ml: float
    expected_volume_ml: float
    seconds: Mapping[str, float]
    warnings: tuple[str, ...]
    scan: Scan

    def entropy(self) -> np.ndarray:
        """Entropy of every voxel, -p log p - (1 - p) log(1 - p) in nats, `(H, W, D)` float32, 0 to log 2."""
        p = torch.from_numpy(self.probability)
        return (torch.special.entr(p) + torch.special.entr(1 - p)).numpy()
