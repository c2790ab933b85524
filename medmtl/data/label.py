"""Label values: one rule for the check of a dataset, the check before training, and training itself."""

from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medmtl.data.case import LabelFile
from medmtl.errors import DataError
from medmtl.io.stored import Stored
from medmtl.io.volume import opened

ROUNDING = 1e-3  # off a whole number that a label value may be: what a factor in a header or an export leaves behind
HALF = 0.5  # of a mask that was resampled or is a probability: the organ from here on
SHOWN = 5  # values in a message


class Label(NamedTuple):
    """The voxels of a file of labels.

    Attributes:
        values: `(H, W, D)`, whole numbers of the file's own type; of a mask its label value, and 0 outside.
        notes: what was taken for something else.
    """

    values: NDArray[Any]
    notes: tuple[str, ...] = ()


def read_label(file: LabelFile) -> Label:
    """Read a file of labels.

    Raises:
        DataError: see `opened`, `check_one_volume` and `label_of`.
    """
    with opened(file.path) as stored:
        check_one_volume(stored)
        return label_of(file, stored.as_stored())


def check_one_volume(stored: Stored) -> None:
    """Check that a file of labels holds one volume.

    Raises:
        DataError: it holds several; named as such where they are one-hot.
    """
    if stored.volumes == 1:
        return
    voxels = stored.as_stored()
    one_hot = voxels.min() == 0 and voxels.max() == 1 and (voxels.sum(axis=-1) == 1).all()
    what = f"{stored.volumes} volumes"
    if one_hot:
        what += ", one-hot: each voxel is 1 in one of them"
    fix = "save the number of that volume, numpy.argmax(voxels, axis=-1)" if one_hot else "use labels of one volume"
    raise DataError(f"label {stored.where} holds {what}", fix=fix)


def label_of(file: LabelFile, voxels: NDArray[Any]) -> Label:
    """The label values of voxels as they are stored.

    Values within `ROUNDING` of a whole number are that number. A mask of one organ may be soft, within 0 and 1: it is
    the organ from `HALF` on. Any other fraction is refused, since it was neither meant as a value nor as a mask.

    Args:
        file: where they come from.
        voxels: `(H, W, D)`.

    Raises:
        DataError: they are neither label values nor a mask.
    """
    notes: tuple[str, ...] = ()
    if voxels.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            whole = np.rint(voxels)
            apart = voxels != whole
            fractions = voxels[~(np.abs(voxels - whole) <= ROUNDING)]
        if fractions.size and file.value is not None and _soft(voxels):
            note = f"the mask is soft: from {HALF:g} on it is the organ"
            return Label(np.where(voxels >= HALF, file.value, 0), (note,))
        if fractions.size:
            what = "no whole numbers" if file.value is None else "neither those of a mask nor of a probability"
            raise DataError(f"label {file.path} holds values that are {what} ({_shown(fractions)})", fix=_fix(file))
        if apart.any():
            notes = (f"values near whole numbers are taken for these (such as {_shown(voxels[apart], 1)})",)
        voxels = whole
    if file.value is None:
        return Label(voxels, notes)
    between = voxels[(voxels > 0) & (voxels != voxels.max())]
    if between.size:
        notes += (f"the mask has values between 0 and {voxels.max()} ({_shown(between)}): all above 0 are the organ",)
    return Label(np.where(voxels > 0, file.value, 0), notes)


def check_declared(file: LabelFile, label: Label, declared: Collection[int] | None) -> None:
    """Check that all values are declared.

    Args:
        file: of the labels.
        label: its voxels.
        declared: all values that may occur; None if any may.

    Raises:
        DataError: one is not.
    """
    if declared is None:
        return
    unknown = [value for value in np.unique(label.values) if value not in declared]
    if unknown:
        raise DataError(
            f"label {file.path} holds the values {', '.join(map(str, unknown[:SHOWN]))}, which are not declared "
            f"({', '.join(map(str, sorted(declared)))} are)",
            fix="declare or correct them",
        )


def _soft(voxels: NDArray[Any]) -> bool:
    return bool(np.isfinite(voxels).all() and voxels.min() >= -ROUNDING and voxels.max() <= 1 + ROUNDING)


def _fix(file: LabelFile) -> str:
    return "save label values" if file.value is None else "save a mask of 0 and 1"


def _shown(values: NDArray[Any], most: int = SHOWN) -> str:
    """Some values, each with as many digits as tell it from others of its type."""
    return ", ".join(map(str, np.unique(values)[:most]))
