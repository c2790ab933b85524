"""Prediction: mask, probability and OOD verdict of one scan."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from medmtl.io.reader import Scan
from medmtl.models.class_output import ClassOutput
from medmtl.ood.reason import Compared


@dataclass(frozen=True)
class Prediction:
    """Mask, probability and OOD verdict of one scan.

    Attributes:
        mask: `(H, W, D)` uint8 on the image's own grid: 1 is the organ; of a task with classes their label values in
            its dataset (uint16 where one is above 255). Post-hoc scaling changes the probability, not the mask.
        probability: of the organ, or of all classes together, after the checkpoint's scaling, `(H, W, D)` float32 in
            [0, 1].
        affine: of the image, `(4, 4)` float64 from voxel indices to mm, right-anterior-superior.
        task: whose organ it is: the given task, or the nearest one.
        preprocessing: of that task, as text.
        in_distribution: False: out-of-distribution; None: undecided.
        p_value: conformal, in (0, 1]; at most `alpha` for an OOD image; None without an OOD detector.
        alpha: share of in-distribution images that may be rejected.
        nearest_task: the nearest task, see `medmtl.ood.nearest`, or the given one; None without an OOD detector.
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
        compared: what describes the mask, each beside its range among the training masks of the nearest task.
        classes: name -> label value in the mask, in the order of the task; empty for an organ of interest.
        volumes_ml: name of a class -> its volume in the mask; of classes that overlap each has all that is its own.
        output: what the network says of the classes, from which `class_probabilities` are computed.
        chosen: how the preprocessing was chosen, where neither task nor modality was given; else empty.
        ood_threshold: an image whose OOD score is above it is out-of-distribution; None without a verdict.
        calibration_patients: held-out patients of each threshold; the p-value is at least 1 / (patients + 1).
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
    compared: tuple[Compared, ...] = ()
    classes: Mapping[str, int] = field(default_factory=dict)
    volumes_ml: Mapping[str, float] = field(default_factory=dict)
    output: ClassOutput | None = field(default=None, repr=False)
    chosen: str = ""
    ood_threshold: float | None = None
    calibration_patients: tuple[int, ...] = ()

    @cached_property
    def class_probabilities(self) -> np.ndarray:
        """The probability of each class in their order, `(classes, H, W, D)` float32; computed when first asked for.

        Classes that exclude each other add up to `probability`; of those that overlap each has its own. An organ of
        interest is one class.
        """
        result = np.empty((max(len(self.classes), 1), *self.probability.shape), np.float32)
        for own, probability in zip(result, self.each_class(), strict=True):
            own[:] = probability
        return result

    def each_class(self) -> Iterator[np.ndarray]:
        """As `class_probabilities`, one volume `(H, W, D)` after the other, of which none is kept."""
        if self.output is None:
            return iter([self.probability])
        return self.output.probabilities(self.probability, self.scan.image)

    @property
    def segments(self) -> Mapping[str, frozenset[int]]:
        """What the mask shows: class -> its label values, of which those that overlap share some; or the task -> 1."""
        return (self.output.segments if self.output is not None else {}) or {self.task: frozenset({1})}

    def entropy(self) -> np.ndarray:
        """Entropy of every voxel, -p log p - (1 - p) log(1 - p) in nats, `(H, W, D)` float32, 0 to log 2."""
        p = torch.from_numpy(self.probability)
        return (torch.special.entr(p) + torch.special.entr(1 - p)).numpy()
