"""The slices of a volume that pages show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from medmtl.calibration.metrics.gap_map import local_gap
from medmtl.calibration.metrics.regions import band
from medmtl.report.cut import cuts, grey_window
from medmtl.report.orientation import VIEWS
from medmtl.report.stack import Stack


class Plane(NamedTuple):
    """One slice of a volume in RAS+ orientation, first array axis across the page and second upwards.

    Attributes:
        image: intensities, shape `(width, height)`.
        label: the truth, bool, same shape.
        probability: of the foreground, in [0, 1], same shape.
        spacing: pixel size in mm along width and height.
        gap: probability minus observed frequency of organ around each pixel, see `local_gap`, same shape; NaN farther
            than 5 mm from the organ.
        parts: truth and prediction as numbers of parts, where there are several classes, same shape each.
    """

    image: NDArray[np.float32]
    label: NDArray[np.bool_]
    probability: NDArray[np.float32]
    spacing: tuple[float, float]
    gap: NDArray[np.float32]
    parts: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None = None


@dataclass(frozen=True)
class CaseSlices:
    """The parts of a volume that are shown: three planes instead of all voxels.

    Attributes:
        planes: "axial", "coronal" and "sagittal" -> plane.
        grey: intensities to show as black and as white, the same for all slices of the volume.
        classes: class -> the numbers of its parts, where there are several.
        stack: the same volume as a strip of slices; None without one.
    """

    planes: dict[str, Plane]
    grey: tuple[float, float]
    classes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    stack: Stack | None = None

    @classmethod
    def cut(
        cls,
        image: NDArray[np.floating],
        label: NDArray[np.bool_] | None,
        probability: NDArray[np.floating],
        spacing: Sequence[float],
        parts: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None = None,
        classes: Mapping[str, Sequence[int]] | None = None,
    ) -> "CaseSlices":
        """Cut a volume where the organ is largest, see `cuts`: the labelled one, or the predicted one without a label.

        Args:
            image: `(H, W, D)`, in RAS+ orientation.
            label: the truth, `(H, W, D)`; None where it is unknown, which counts as no organ.
            probability: of the foreground, `(H, W, D)`, in [0, 1].
            spacing: voxel size in mm along H, W and D.
            parts: truth and prediction as numbers of parts, where there are several classes, `(H, W, D)` each.
            classes: class -> the numbers of its parts.
        """
        label = np.broadcast_to(np.False_, image.shape) if label is None else label
        organ = np.asarray(label, dtype=bool)
        organ = organ if organ.any() else np.asarray(probability) >= 0.5
        near_organ = band(torch.from_numpy(np.array(label, dtype=bool)), spacing).numpy()
        planes = {}
        for name, cut in cuts(image, organ).items():
            fixed, across, up = VIEWS[name]
            gap = local_gap(probability, label, near_organ, spacing, fixed, cut[fixed])
            planes[name] = Plane(
                image=np.array(image[cut], dtype=np.float32),
                label=np.array(label[cut], dtype=bool),
                probability=np.array(probability[cut], dtype=np.float32),
                spacing=(float(spacing[across]), float(spacing[up])),
                gap=gap[cut[across], cut[up]].copy(),
                parts=None if parts is None else (parts[0][cut].astype(np.uint8), parts[1][cut].astype(np.uint8)),
            )
        return cls(planes, grey_window(image, organ, spacing), dict(classes or {}))
