"""An OOD image that was accepted is shown with the mask that the network drew, on its own grid."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from medmtl.callbacks.report import _slices_of_missed

AFFINE = np.array([[-2.0, 0, 0, 20], [0, -2, 0, 20], [0, 0, 3, 0], [0, 0, 0, 1]])


def found_of(rejected, preprocessing="b"):
    """An image of which the second preprocessing drew a mask on a grid twice as coarse."""
    coarse = AFFINE @ np.diag([2.0, 2.0, 1.0, 1.0])
    coarse[:3, 3] = (AFFINE @ [0.5, 0.5, 0, 1])[:3]
    mask = torch.zeros(1, 8, 6, 10)
    mask[:, 5:7, 2:4, 4:7] = 1
    drawn = {
        "a": MetaTensor(torch.zeros_like(mask), affine=torch.from_numpy(coarse)),
        "b": MetaTensor(mask, affine=torch.from_numpy(coarse)),
    }
    verdict = None if rejected == "none" else SimpleNamespace(rejected=rejected, preprocessing=preprocessing)
    return SimpleNamespace(verdict=verdict, probabilities=drawn)


@pytest.fixture
def scan():
    voxels = np.random.default_rng(0).normal(size=(1, 16, 12, 10)).astype(np.float32)
    return {"native": MetaTensor(torch.from_numpy(voxels), affine=torch.from_numpy(AFFINE))}


def test_the_mask_of_the_chosen_preprocessing_lies_where_it_was_drawn(scan):
    slices = _slices_of_missed(scan, found_of(False))
    axial = slices.planes["axial"]
    inside = np.argwhere(axial.probability >= 0.5)
    # Voxels 10 to 13 and 4 to 7 of the file, whose first two axes point to the left and to the back.
    assert [tuple(end) for end in (inside.min(0), inside.max(0))] == [(16 - 14, 12 - 8), (16 - 11, 12 - 5)]
    assert axial.spacing == (2.0, 2.0)
    assert not axial.label.any()
    assert set(slices.stack.layers) == {"scan", "mask", "probability"}


@pytest.mark.parametrize("rejected", [True, None, "none"])
def test_other_images_without_a_label_keep_nothing(scan, rejected):
    assert _slices_of_missed(scan, found_of(rejected)) is None
