"""Writer: masks and maps out, in the format of the input and on its very grid."""

import logging
from collections.abc import Collection, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import numpy as np

from medmtl.io.dicom_seg import write_segmentation
from medmtl.io.input import MASK, Input
from medmtl.io.itk import Grid, write_itk
from medmtl.io.nifti import write_nifti
from medmtl.io.reader import Scan

logger = logging.getLogger(__name__)

SUFFIXES = {"nrrd": ".nrrd", "meta": ".mha"}
ORGAN: Mapping[str, Collection[int]] = MappingProxyType({"foreground": (1,)})


def mask_paths(folder: Path, source: Input, suffix: str = MASK) -> list[Path]:
    """The files that `write_mask` may write for an image."""
    endings = [SUFFIXES.get(source.kind, ".nii.gz"), *([".dcm"] if source.kind == "dicom" else [])]
    return [folder / f"{source.name}{suffix}{ending}" for ending in endings]


def write_mask(
    folder: Path, scan: Scan, mask: np.ndarray, segments: Mapping[str, Collection[int]] = ORGAN, suffix: str = MASK
) -> list[Path]:
    """Write a mask as `<name><suffix>`, whole.

    Args:
        folder: where to; it is made if need be.
        scan: what the mask was made from.
        mask: `(H, W, D)`, label values, 0 outside; written as uint8 unless it is of another unsigned type.
        segments: what the mask shows, for DICOM: name -> its label values, which segments may share.
        suffix: of the files' names.

    Returns:
        The files: NRRD for NRRD, MetaImage (`.mha`) for MetaImage, NIfTI (`.nii.gz`) for all others; then a DICOM SEG
        where the input was DICOM and highdicom is installed. If the series lacks attributes of patient and
        study that a SEG needs, a warning is logged and none is written.
    """
    mask = np.asarray(mask, None if np.asarray(mask).dtype.kind == "u" else np.uint8)
    written = [_write(folder, scan, mask, suffix)]
    if scan.input.kind == "dicom" and find_spec("highdicom"):
        *_, path = mask_paths(folder, scan.input, suffix)
        try:
            slices = cast("tuple[tuple[Any, ...], ...]", scan.header)[scan.input.volume or 0]
            write_segmentation(path, mask, scan.image.affine.numpy(), slices, segments)
            written.append(path)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            logger.warning("%s: no DICOM SEG, the series lacks attributes (%s)", scan.input.path, error)
    return written


def write_map(folder: Path, scan: Scan, values: np.ndarray, suffix: str, classes: Sequence[str] = ()) -> Path:
    """Write a map of numbers as `<name>_<suffix>`, whole.

    Args:
        folder: where to; it is made if need be.
        scan: what the map was made from.
        values: `(H, W, D)`, or `(C, H, W, D)` with a volume a class; written as float32.
        suffix: what the numbers are: `probability`, `entropy`.
        classes: names of the volumes, in their order, for the header.

    Returns:
        The file, in the format of the mask. It has four dimensions where the values have, the last one that of the
        classes.
    """
    volumes = np.moveaxis(values, 0, -1) if values.ndim == 4 else values
    return _write(folder, scan, np.asarray(volumes, np.float32), f"_{suffix.removeprefix('_')}", "; ".join(classes))


def _write(folder: Path, scan: Scan, values: np.ndarray, what: str, description: str = "") -> Path:
    if values.shape[:3] != scan.image.shape[1:]:
        raise ValueError(f"{what} of {scan.name}: {values.shape} is not the scan's {tuple(scan.image.shape[1:])}")
    path = folder / f"{scan.name}{what}{SUFFIXES.get(scan.input.kind, '.nii.gz')}"
    if isinstance(scan.header, Grid):
        write_itk(path, values, scan.header, description)
    else:
        write_nifti(path, values, scan.image.affine.numpy(), scan.header, description)
    return path
