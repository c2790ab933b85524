"""Warnings about a mask and its verdict."""

import math
from collections.abc import Collection

import nibabel
import numpy as np
from numpy.typing import NDArray

from medmtl.data.preprocessing import Preprocessing

COARSER = 2.0  # times the network's voxel: beyond it most of the network's input is interpolated
AXES = ("right to left", "front to back", "head to foot")


def verdict_warnings(
    in_distribution: bool | None, p_value: float | None, alpha: float, precision: str = "32"
) -> list[str]:
    """Why there is no verdict, or why it may differ.

    The detector was fitted, and its threshold estimated, in 32 bit. For the 40 validation and test
    phantoms of `multitask.yaml`, `medmtl predict --precision bf16` on a CPU gives OOD scores that differ by .036 on
    average and .165 at most, where their standard deviation is .93. No verdict changes at alpha = 0.05, two do at 0.1.

    Args:
        in_distribution: the verdict.
        p_value: of the image; None without an OOD detector.
        alpha: share of in-distribution images that may be rejected.
        precision: of the network's arithmetic, `32`, `16` or `bf16`.
    """
    if p_value is None:
        return ["no verdict: the checkpoint has no OOD detector, train with `spectral.layers`"]
    if in_distribution is None:
        return [f"no verdict at alpha = {alpha:g}: too few patients were held out in training"]
    if precision != "32":
        return [f"the OOD threshold was estimated in 32 bit: with {precision} the p-value may differ"]
    return []


def mask_warnings(
    mask: NDArray[np.unsignedinteger],
    affine: NDArray[np.float64],
    preprocessing: Preprocessing,
) -> list[str]:
    """Warnings about a mask and its image.

    Args:
        mask: `(H, W, D)`, on the image's grid, 0 outside.
        affine: `(4, 4)`, from its voxel indices to mm, right-anterior-superior.
        preprocessing: as used.
    """
    found = []
    if not mask.any():
        found.append("the mask is empty")
    elif any(mask.take(end, axis).any() for axis in range(3) for end in (0, -1)):
        found.append("the mask touches the border of the image: the organ may be cut off")
    spacing = nibabel.as_closest_canonical(nibabel.Nifti1Image(mask, affine)).header.get_zooms()
    for axis, size, working in zip(AXES, spacing, preprocessing.spacing, strict=True):
        if size > COARSER * working and not math.isclose(size, COARSER * working, rel_tol=1e-3):
            found.append(f"voxels are {size:g} mm {axis}, and the network works at {working:g} mm")
    return found


def choice_in_words(preprocessing: Preprocessing, tried: Collection[Preprocessing]) -> str:
    """How the preprocessing was chosen, where several were tried; else empty. It is a fact and no warning.

    Args:
        preprocessing: as used.
        tried: all candidates.
    """
    if len(tried) < 2:
        return ""
    tasks = f"the output of the nearest of {len(tried)} tasks was used"
    settings = f"the nearest of {len(tried)} preprocessing settings was used"
    return f"modality and task are unknown: {settings if preprocessing.head is None else tasks}"
