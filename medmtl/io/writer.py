"""Writer: masks and maps out, in the format of the input and on its very grid."""

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np

from medmtl.io.dicom_seg import write_segmentation
from medmtl.io.itk import Grid, write_itk
from medmtl.io.nifti import write_nifti
from medmtl.io.reader import Scan

logger = logging.getLogger(__name__)

SUFFIXES = {"nrrd": ".nrrd", "meta": ".mha"}


def write_mask(folder: Path, scan: Scan, mask: np.ndarray, label: str = "foreground") -> list[Path]:
    """Write a mask as `<name>_mask`, whole.

    Args:
        folder: where to; it is made if need be.
        scan: what the mask was made from.
        mask: `(H, W, D)`, 1 is foreground.
        label: what the mask shows, for DICOM.

    Returns:
        The files: NRRD for NRRD, MetaImage (`.mha`) for MetaImage, NIfTI (`.nii.gz`) for all others; then a DICOM SEG
        where the input was DICOM and highdicom is installed. If the series lacks attributes of patient and
        study that a SEG needs, a warning is logged and none is written.
    """
    mask = np.asarray(mask, np.uint8)
    written = [_write(folder, scan, mask, "mask")]
    if scan.input.kind == "dicom" and find_spec("highdicom"):
        path = folder / f"{scan.name}_mask.dcm"
        try:
            write_segmentation(path, mask, scan.image.affine.numpy(), cast("tuple[Any, ...]", scan.header), label)
            written.append(path)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            logger.warning("%s: no DICOM SEG, the series lacks attributes (%s)", scan.input.path, error)
    return written


def write_map(folder: Path, scan: Scan, values: np.ndarray, suffix: str) -> Path:
    """Write a map of numbers as `<name>_<suffix>`, whole.

    Args:
        folder: where to; it is made if need be.
        scan: what the map was made from.
        values: `(H, W, D)`, written as float32.
        suffix: what the numbers are: `probability`, `entropy`.

    Returns:
        The file, in the format of the mask.
    """
    return _write(folder, scan, np.asarray(values, np.float32), suffix.removeprefix("_"))


def _write(folder: Path, scan: Scan, values: np.ndarray, what: str) -> Path:
    if values.shape != scan.image.shape[1:]:
        raise ValueError(f"{what} of {scan.name}: {values.shape} is not the scan's {tuple(scan.image.shape[1:])}")
    path = folder / f"{scan.name}_{what}{SUFFIXES.get(scan.input.kind, '.nii.gz')}"
    if isinstance(scan.header, Grid):
        write_itk(path, values, scan.header)
    else:
        write_nifti(path, values, scan.image.affine.numpy(), scan.header)
    return path
