"""Resampling of whole volumes in slabs, so that what it needs beside input and output does not grow with them."""

import math
from collections.abc import Sequence

import torch
from monai.data import MetaTensor
from monai.data.utils import AFFINE_TOL, affine_to_spacing, compute_shape_offset, zoom_affine
from monai.transforms import SpatialResample

SLAB = 4_000_000  # voxels of a slab; MONAI holds some 40 bytes for each
MARGIN = 2  # voxels around what a slab is interpolated from


def to_spacing(image: MetaTensor, spacing: Sequence[float]) -> MetaTensor:
    """Bring a volume to another spacing along its own axes, linearly interpolated, as MONAI's `Spacing` does.

    Args:
        image: `(C, H, W, D)`.
        spacing: voxel size along each axis, mm.

    Returns:
        `(C, h, w, d)` float32.
    """
    affine = image.affine.numpy()
    # Rounding in a header is no reason to interpolate.
    sizes = [
        own if abs(own - wanted) <= AFFINE_TOL else wanted
        for own, wanted in zip(affine_to_spacing(affine, 3), spacing, strict=True)
    ]
    target = zoom_affine(affine, sizes, diagonal=False)
    shape, offset = compute_shape_offset(image.shape[1:], affine, target)
    target[:3, 3] = offset
    return to_grid(image, torch.as_tensor(target), [int(size) for size in shape])


def to_grid(image: MetaTensor, affine: torch.Tensor, shape: Sequence[int]) -> MetaTensor:
    """Bring a volume to another grid, linearly interpolated; beyond its border its outermost voxels count.

    Args:
        image: `(C, H, W, D)`.
        affine: of the grid, `(4, 4)` from voxel indices to mm.
        shape: voxels along each of its axes.

    Returns:
        `(C, h, w, d)` float32.
    """
    resample = SpatialResample(mode="bilinear", padding_mode="border")
    thickness = max(1, SLAB // math.prod(shape[1:]))
    if thickness >= shape[0] and math.prod(image.shape[1:]) <= SLAB:
        return resample(image, dst_affine=affine, spatial_size=list(shape))
    affine = affine.to(image.affine)
    result = torch.empty((image.shape[0], *shape), dtype=torch.float32, device=image.device)
    for start in range(0, shape[0], thickness):
        stop = min(start + thickness, shape[0])
        slab = _moved(affine, [start, 0, 0])
        piece = _around(image, slab, (stop - start, *shape[1:]))
        result[:, start:stop] = resample(piece, dst_affine=slab, spatial_size=(stop - start, *shape[1:])).as_tensor()
    return MetaTensor(result, affine=affine)


def _moved(affine: torch.Tensor, start: Sequence[int]) -> torch.Tensor:
    """The affine of a grid that starts at a voxel of another."""
    moved = affine.clone()
    moved[:3, 3] = affine[:3, :3] @ torch.as_tensor(start).to(affine) + affine[:3, 3]
    return moved


def _around(image: MetaTensor, affine: torch.Tensor, shape: Sequence[int]) -> MetaTensor:
    """The part of an image that a grid lies in, and some voxels around it."""
    corners = torch.cartesian_prod(*(torch.tensor([0.0, size - 1.0]).to(affine) for size in shape))
    indices = torch.linalg.solve(image.affine, affine) @ torch.cat([corners, torch.ones_like(corners[:, :1])], 1).T
    box = []
    for axis, size in enumerate(image.shape[1:]):
        low, high = indices[axis].min().floor() - MARGIN, indices[axis].max().ceil() + MARGIN + 1
        start = min(max(int(low), 0), size - 1)
        box.append((start, max(min(int(high), size), start + 1)))
    cut = image.as_tensor()[(slice(None), *(slice(*side) for side in box))]
    return MetaTensor(cut, affine=_moved(image.affine, [start for start, _ in box]))
