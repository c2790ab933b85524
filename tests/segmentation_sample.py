from typing import Any

import torch
from monai.data import MetaTensor

from medmtl.calibration.scaling.working_volume import WorkingVolume
from medmtl.models.scored import Segmentation

SPACING = (1.0, 2.0, 3.0)


def segmentation(seed: int = 0, **given: Any) -> Segmentation:
    """A segmentation with random image and probability, and a small organ."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.zeros(12, 10, 8, dtype=torch.bool)
    label[4:7, 4:6, 3:5] = True
    image, probability = torch.rand(2, 12, 10, 8, generator=generator)
    affine = torch.diag(torch.tensor([*SPACING, 1.0]))
    values: dict[str, Any] = {
        "probability": probability,
        "scaled": None,
        "label": label,
        "known": None,
        "image": MetaTensor(image, affine),
        "spacing_mm": list(SPACING),
        "working": WorkingVolume.of(image, probability, affine, affine),
        "accuracy": {"dice": 0.5},
    }
    return Segmentation(**(values | given))
