"""How the grids of two volumes that should be one differ, and a volume put into another's storage order."""

from typing import Literal

import numpy as np
from nibabel.affines import apply_affine
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt_transform

from medmtl.io.stored import AFFINE_TOLERANCE_MM
from medmtl.io.volume import Volume

Likeness = Literal["same", "reordered", "affine", "shape"]


def compare(volume: Volume, image: Volume) -> Likeness:
    """Compare the grid of a volume of three dimensions with that of an image.

    Returns:
        "same", within `AFFINE_TOLERANCE_MM`; "reordered": the same places in the world, stored along other axes or in
        other directions; "affine": as many voxels, in other places; "shape": none of these.
    """
    if len(volume.shape) != 3:
        return "shape"
    if _same(volume, image):
        return "same"
    if has_axes(volume) and _same(reordered(volume, image), image):
        return "reordered"
    return "affine" if volume.shape == image.shape[:3] else "shape"


def has_axes(volume: Volume) -> bool:
    """Whether the affine is finite and can be inverted."""
    return bool(np.isfinite(volume.affine).all()) and abs(np.linalg.det(volume.affine[:3, :3])) > 1e-9


def reordered(volume: Volume, image: Volume) -> Volume:
    """A volume with its axes in the order and direction of an image's; every voxel keeps its place in the world."""
    turn = ornt_transform(io_orientation(volume.affine), io_orientation(image.affine))
    return Volume(apply_orientation(volume.voxels, turn), volume.affine @ inv_ornt_aff(turn, volume.shape))


def apart_mm(volume: Volume, image: Volume) -> float:
    """The largest distance between the places that two affines give the same voxel; it lies at a corner."""
    corners = np.stack(np.meshgrid(*((0, size - 1) for size in image.shape[:3])), axis=-1).reshape(-1, 3)
    places = [apply_affine(each.affine, corners) for each in (volume, image)]
    return float(np.linalg.norm(places[0] - places[1], axis=1).max())


def _same(volume: Volume, image: Volume) -> bool:
    return volume.shape == image.shape[:3] and np.allclose(volume.affine, image.affine, atol=AFFINE_TOLERANCE_MM)
