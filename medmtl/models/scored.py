"""ScoredScan: what a validation or test step finds for one volume, read by the callbacks and changed by none."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from monai.data import MetaTensor
from torch import Tensor

from medmtl.calibration.metrics.regions import REGIONS
from medmtl.calibration.scaling.working_volume import WorkingVolume
from medmtl.data.preprocessing import Preprocessing
from medmtl.models.class_volumes import ClassVolumes
from medmtl.ood.mask_rule import MaskVerdict
from medmtl.ood.verdict import Verdict


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A volume segmented under its task's preprocessing, beside its label, on the image's own grid.

    Attributes:
        probability: of foreground, in [0, 1], `(H, W, D)`.
        scaled: the same after post-hoc scaling; None without one.
        label: the truth, bool `(H, W, D)`; False where it is unknown.
        known: where it is known, bool `(H, W, D)`; None if everywhere. Nowhere, if a class of the task is not marked.
        image: intensities as stored, `(H, W, D)`.
        spacing_mm: distance between voxels along each axis, mm.
        working: image and probability in the preprocessing's working space.
        accuracy: `dice` in [0, 1] and, in a test, `hd95_mm` and `asd_mm`, see `medmtl.accuracy`; NaN without
            foreground in the label. Of a task with several classes the mean over these, with `CLASS/dice`, ... of each
            and `foreground/dice` of all as one.
        parts: prediction and label of a task with several classes, numbers of parts, both uint8 `(H, W, D)`; None with
            one.
        classes: their probabilities and labels, one at a time; None with one.
        scaled_classes: the same after post-hoc scaling; None without one, and where classes overlap.
    """

    probability: Tensor
    scaled: Tensor | None
    label: Tensor
    known: Tensor | None
    image: MetaTensor
    spacing_mm: list[float]
    working: WorkingVolume
    accuracy: Mapping[str, float]
    parts: tuple[Tensor, Tensor] | None = None
    classes: ClassVolumes | None = None
    scaled_classes: ClassVolumes | None = None
    _regions: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    def region(self, name: str) -> Tensor:
        """One of `REGIONS`, bool `(H, W, D)`, without the voxels whose truth is unknown.

        It is computed once, whoever asks first: the distances of some regions take seconds.
        """
        if name not in self._regions:
            region = REGIONS[name](self.label, self.spacing_mm, self.image, self.probability)
            self._regions[name] = region if self.known is None else region & self.known.to(region.device)
        return self._regions[name]


@dataclass(frozen=True, eq=False)
class ScoredScan:
    """What a validation or test step finds for one volume.

    Attributes:
        probabilities: preprocessing -> probability of foreground in its working space, `(1, h, w, d)`.
        segmentation: under the preprocessing of its task; None for an image without a task.
        verdict: None without an OOD detector.
        mask: the verdict on the mask under the verdict's preprocessing; None without a mask rule.
    """

    probabilities: Mapping[Preprocessing, MetaTensor]
    segmentation: Segmentation | None
    verdict: Verdict | None
    mask: MaskVerdict | None = None
