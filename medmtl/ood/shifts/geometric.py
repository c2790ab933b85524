"""Shifts of the geometry, which move the label along, and the controls that should change nothing.

All work on images and labels alike: whole numbers are a label, whose values are never mixed.
"""

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation, SpatialCrop
from scipy.interpolate import BSpline
from torch import Tensor
from torch.nn.functional import grid_sample

CONTROL_POINTS = 7


def elastic(volume: MetaTensor, strength: float, random: np.random.Generator) -> MetaTensor:
    """Smooth random deformation on the same grid: cubic B-splines over 7^3 control points, the outermost fixed.

    (Rueckert et al. 1999, as torchio's ElasticDeformation, at a fifth of its time.)

    Args:
        volume: image or label, `(1, H, W, D)`.
        strength: the largest displacement along an axis, as a share of the field of view.
        random: draws the deformation.
    """
    inner = random.uniform(-1, 1, (3, *(CONTROL_POINTS - 2,) * 3))
    control = torch.from_numpy(np.pad(inner, [(0, 0), (1, 1), (1, 1), (1, 1)])).float()
    shape = volume.shape[1:]
    field = torch.einsum("cijk,xi,yj,zk->xyzc", control, *(_spline_basis(size) for size in shape))
    field *= 2 * strength / field.abs().max()  # the grid runs from -1 to 1
    rest = torch.meshgrid(*(torch.linspace(-1, 1, size) for size in shape), indexing="ij")
    grid = (torch.stack(rest, dim=-1) + field).flip(-1)  # grid_sample wants the last axis first
    is_image = volume.is_floating_point()
    moved = grid_sample(
        volume.as_tensor()[None].float(),
        grid[None],
        mode="bilinear" if is_image else "nearest",
        padding_mode="border",
        align_corners=True,
    )
    return MetaTensor(moved[0] if is_image else moved[0].to(volume.dtype), affine=volume.affine)


def crop(volume: MetaTensor, strength: float, random: np.random.Generator) -> MetaTensor:
    """A smaller field of view at a random place; strength: the share of each side that is lost."""
    sides = np.array(volume.shape[1:])
    kept = np.maximum(1, np.round(sides * (1 - strength))).astype(int)
    start = np.round(random.random(3) * (sides - kept)).astype(int)
    return SpatialCrop(roi_start=start, roi_end=start + kept)(volume).clone()


def wrong_orientation(volume: MetaTensor, strength: float, random: np.random.Generator) -> MetaTensor:
    """The voxels are turned by a quarter about a random axis, and the affine does not say so."""
    first, second = random.permutation(3)[:2] + 1
    return MetaTensor(
        torch.rot90(volume.as_tensor(), dims=[int(first), int(second)]).contiguous(), affine=volume.affine
    )


def wrong_spacing(volume: MetaTensor, strength: float, random: np.random.Generator) -> MetaTensor:
    """The affine states a wrong spacing along one axis; strength: how many times too large or too small."""
    affine = volume.affine.clone()
    affine[:3, int(random.integers(3))] *= float(random.choice([strength, 1 / strength]))
    return MetaTensor(volume.as_tensor().clone(), affine=affine)


def flip(volume: MetaTensor, strength: float, random: np.random.Generator) -> MetaTensor:
    """The patient is mirrored, left for right."""
    axis = int(np.flatnonzero(nib.orientations.io_orientation(volume.affine.numpy())[:, 0] == 0)[0])
    return MetaTensor(volume.as_tensor().flip(axis + 1), affine=volume.affine)


def declared_orientation(volume: MetaTensor, strength: float, random: np.random.Generator) -> MetaTensor:
    """Another order of storage, every axis reversed and the first last, and the affine says so."""
    opposite = dict(zip("LRAPIS", "RLPASI", strict=True))
    codes = nib.orientations.aff2axcodes(volume.affine.numpy())
    stored = Orientation("".join(opposite[code] for code in reversed(codes)), labels=None)(volume)
    return MetaTensor(stored.as_tensor().contiguous(), affine=stored.affine)


def _spline_basis(size: int) -> Tensor:
    """Cubic B-splines at equally spaced voxels, `(size, CONTROL_POINTS)` float32; the end splines are 1 at the ends."""
    knots = np.r_[[0.0] * 3, np.linspace(0, 1, CONTROL_POINTS - 2), [1.0] * 3]
    return torch.from_numpy(BSpline.design_matrix(np.linspace(0, 1, size), knots, 3).toarray()).float()
