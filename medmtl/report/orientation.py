"""How a slice lies on a page: which side of the patient is at which edge.

Pages follow the radiological convention, in which one looks at the patient from the feet and from the front: the
patient's right is on the left. `MEDMTL_CONVENTION=neurological` turns it round, for every command.
"""

import os
from typing import Any, NamedTuple

import nibabel
import numpy as np
from numpy.typing import NDArray

from medmtl.errors import ConfigError

VARIABLE = "MEDMTL_CONVENTION"
RADIOLOGICAL, NEUROLOGICAL = "radiological", "neurological"
ENDS = (("L", "R"), ("P", "A"), ("I", "S"))  # low and high end of each axis of a volume in RAS+ orientation

_SAID = {
    RADIOLOGICAL: "Radiological convention: the patient's right (R) is on the left of axial and coronal slices, the "
    "front (A) on the left of sagittal ones.",
    NEUROLOGICAL: "Neurological convention, not the radiological one: the patient's right (R) is on the right of axial "
    "and coronal slices, the front (A) on the right of sagittal ones.",
}


class View(NamedTuple):
    """A direction in which a volume in RAS+ orientation is cut.

    Attributes:
        fixed: the axis that is cut.
        across: the axis that lies across the page; from right to left where `mirrored`.
        up: the axis that points upwards.
    """

    fixed: int
    across: int
    up: int


class Letters(NamedTuple):
    """The sides of the patient (R, L, A, P, S, I) at the edges of a slice."""

    left: str
    right: str
    bottom: str
    top: str


VIEWS = {"axial": View(2, 0, 1), "coronal": View(1, 0, 2), "sagittal": View(0, 1, 2)}


def convention() -> str:
    """The convention of all pages, `radiological` or `neurological`.

    Raises:
        ConfigError: `MEDMTL_CONVENTION` is neither.
    """
    chosen = os.environ.get(VARIABLE, "") or RADIOLOGICAL
    if chosen not in _SAID:
        raise ConfigError(f"{VARIABLE}={chosen}", fix=f"use {RADIOLOGICAL} or {NEUROLOGICAL}")
    return chosen


def mirrored() -> bool:
    """Whether the axis across a slice runs from right to left on the page."""
    return convention() == RADIOLOGICAL


def in_words() -> str:
    """The convention as a sentence, for every page with slices."""
    return _SAID[convention()]


def letters_of(name: str) -> Letters:
    """The letters at the edges of a slice.

    Args:
        name: of the view, "axial", "coronal" or "sagittal".
    """
    view = VIEWS[name]
    low, high = ENDS[view.across]
    return Letters(*((high, low) if mirrored() else (low, high)), *ENDS[view.up])


def to_ras(affine: NDArray[np.floating], *volumes: NDArray[Any]) -> tuple[list[NDArray[Any]], list[float]]:
    """Turn volumes so that their axes point to the patient's right, front and head, as nearly as quarter turns can.

    Args:
        affine: `(4, 4)` from voxel indices to mm, right-anterior-superior.
        volumes: `(H, W, D)`, all on this grid.

    Returns:
        Views of the volumes, of which nothing is copied, and the size of their voxels along each axis, mm.
    """
    turn = nibabel.io_orientation(affine)
    sizes = np.linalg.norm(np.asarray(affine, dtype=np.float64)[:3, :3], axis=0)
    spacing = [float(sizes[int(np.flatnonzero(turn[:, 0] == axis)[0])]) for axis in range(3)]
    return [nibabel.apply_orientation(volume, turn) for volume in volumes], spacing


def on_page(plane: NDArray[Any]) -> NDArray[Any]:
    """The pixels of a slice as rows of the page, from top left.

    Args:
        plane: `(across, up)`, cut from a volume in RAS+ orientation.

    Returns:
        `(up, across)`, a view of the plane.
    """
    rows = plane.T[::-1]
    return rows[:, ::-1] if mirrored() else rows
