"""Volumes of every file format that a training folder may hold: voxels in storage order, and where they lie."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK
from nibabel.nifti1 import Nifti1Header
from numpy.typing import NDArray

NIFTI = (".nii.gz", ".nii")
ENDINGS = (*NIFTI, ".nrrd", ".mha")
# ITK counts millimetres to the patient's left and back, NIfTI to the right and the front.
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

# Headers store affines in float32; a thousandth of a millimetre is beyond any scanner.
AFFINE_TOLERANCE_MM = 1e-3

MILLIMETRES = {1: 1000.0, 2: 1.0, 3: 0.001}  # unit of length in a NIfTI header: metre, millimetre, micrometre
SPATIAL = 0b111  # bits of `xyzt_units` that hold it


@dataclass(frozen=True)
class Volume:
    """What a file holds.

    Attributes:
        voxels: `(H, W, D)`, or `(H, W, D, C)` with channels, as stored.
        affine: from voxel indices to mm, right-anterior-superior, `(4, 4)` float64.
    """

    voxels: NDArray[Any]
    affine: NDArray[np.float64]

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along each axis."""
        return self.voxels.shape


def stem(path: Path) -> str:
    """The name of a file without its ending, which may have two parts: `a.nii.gz` -> `a`."""
    for ending in ENDINGS:
        if path.name.endswith(ending):
            return path.name.removesuffix(ending)
    return path.stem


def millimetres(header: Nifti1Header) -> float:
    """Length in mm of the unit that a NIfTI header counts in; a header that names none counts in mm."""
    return MILLIMETRES.get(int(header["xyzt_units"]) & SPATIAL, 1.0)


def affine_of(image: nibabel.Nifti1Image) -> NDArray[np.float64]:
    """The affine of a NIfTI image, `(4, 4)` from voxel indices to mm: its sform, or its qform where it has none."""
    affine = np.array(image.affine, np.float64)
    affine[:3] *= millimetres(image.header)
    return affine


def read_volume(path: Path) -> Volume:
    """Read a NIfTI, NRRD or MetaImage file.

    Raises:
        Exception: of the library that reads the file, where it is missing or broken.
    """
    if path.name.endswith(NIFTI):
        image = nibabel.load(path)
        return Volume(np.asanyarray(image.dataobj), affine_of(image))
    return _read_with_itk(path)


def extent_mm(path: Path) -> list[float]:
    """The length of a volume along each of its three axes in mm, from the header alone."""
    if path.name.endswith(NIFTI):
        header = nibabel.load(path).header
        shape, steps = header.get_data_shape(), [size * millimetres(header) for size in header.get_zooms()[:3]]
    else:
        reader = SimpleITK.ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        shape, steps = reader.GetSize(), reader.GetSpacing()
    return [float(size * step) for size, step in zip(shape[:3], steps[:3], strict=True)]


def _read_with_itk(path: Path) -> Volume:
    if not path.is_file():
        raise FileNotFoundError(path)
    image = SimpleITK.ReadImage(str(path))
    # Of four dimensions the last one is time, or channels: it has no place in the patient.
    dimensions = image.GetDimension()
    direction = np.reshape(image.GetDirection(), (dimensions, dimensions))[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = direction * np.asarray(image.GetSpacing()[:3])
    affine[:3, 3] = image.GetOrigin()[:3]
    voxels = SimpleITK.GetArrayFromImage(image)  # the slowest axis first; channels of a vector image last
    spatial = tuple(reversed(range(dimensions)))
    return Volume(voxels.transpose(spatial + tuple(range(dimensions, voxels.ndim))), LPS_TO_RAS @ affine)
