"""Grids: distinguished in all 48 orders of the axes, and reordered without moving a voxel."""

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from medmtl.data_tools.grids import apart_mm, compare, reordered
from medmtl.io.volume import Volume

AFFINE = np.array([[0.9, 0.1, 0, -20], [-0.1, 1.9, 0.2, 5], [0, -0.2, 3, 40], [0, 0, 0, 1]])
VOXELS = np.arange(3 * 4 * 5).reshape(3, 4, 5)
ORDERS = ["".join(code) for axes in permutations(("LR", "PA", "IS")) for code in product(*axes)]


def test_each_of_the_48_storage_orders_is_recognised_and_undone() -> None:
    image = nib.Nifti1Image(VOXELS.astype(np.int16), AFFINE)
    assert len(ORDERS) == 48
    for order in ORDERS:
        turned = image.as_reoriented(ornt_transform(io_orientation(AFFINE), axcodes2ornt(order)))
        label = Volume(np.asanyarray(turned.dataobj), turned.affine)
        assert compare(label, Volume(VOXELS, AFFINE)) == ("same" if order == "RAS" else "reordered"), order
        back = reordered(label, Volume(VOXELS, AFFINE))
        assert np.array_equal(back.voxels, VOXELS), order
        assert np.allclose(back.affine, AFFINE), order


def test_what_no_order_explains() -> None:
    image, moved = Volume(VOXELS, AFFINE), AFFINE.copy()
    moved[:3, 3] += [3, 0, 4]
    assert compare(Volume(VOXELS, moved), image) == "affine"
    assert apart_mm(Volume(VOXELS, moved), image) == pytest.approx(5)
    assert compare(Volume(VOXELS[:2], AFFINE), image) == "shape"
    assert compare(Volume(VOXELS[..., None], AFFINE), image) == "shape"
    assert compare(Volume(VOXELS, AFFINE * np.nan), image) == "affine"


def test_a_coarser_grid_is_told_by_its_far_corner() -> None:
    image, coarse = Volume(VOXELS, np.eye(4)), Volume(VOXELS, np.diag([2, 1, 1, 1]))
    assert apart_mm(coarse, image) == pytest.approx(2)


def test_rounding_is_no_difference() -> None:
    assert compare(Volume(VOXELS, AFFINE.astype(np.float32)), Volume(VOXELS, AFFINE)) == "same"
