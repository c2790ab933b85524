"""DICOM series made of arrays, slice by slice, as a scanner would write them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    generate_uid,
)

CLASSES = {"CT": CTImageStorage, "MR": MRImageStorage, "PT": PositronEmissionTomographyImageStorage}


def as_localizer(_: int, image: Dataset) -> None:
    """Make an image say that it was made to plan others; see `change` of `write_series`."""
    image.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]


def write_series(
    folder: Path,
    voxels: NDArray,
    affine: NDArray,
    modality: str = "CT",
    series: str = "one",
    number: int = 1,
    slope: Callable[[int], float] = lambda _: 1.0,
    intercept: Callable[[int], float] = lambda _: 0.0,
    change: Callable[[int, Dataset], None] = lambda _, __: None,
) -> list[Path]:
    """Write a volume as a series, one file a slice, in an order that says nothing of their places.

    Args:
        folder: where to.
        voxels: `(H, W, D)` integers: what is stored, before rescaling.
        affine: `(4, 4)`, right-anterior-superior.
        modality: as DICOM says it.
        series: identifiers are made of it.
        number: number of the series.
        slope: slice -> its rescale slope.
        intercept: slice -> its rescale intercept.
        change: slice, data set -> changes whatever else.

    Returns:
        The files in the order of the slices.
    """
    folder.mkdir(parents=True, exist_ok=True)
    posterior = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # left-posterior-superior
    spacing = np.linalg.norm(posterior[:3, :3], axis=0)
    across, down, step = (posterior[:3, :3] / spacing).T
    files = []
    for index in range(voxels.shape[2]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CLASSES[modality]
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[series, str(index)])
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = folder / f"{series}-{(index * 7) % 1000:03d}-{index}.dcm"
        image = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
        image.SOPClassUID, image.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        image.StudyInstanceUID = generate_uid(entropy_srcs=["study"])
        image.SeriesInstanceUID = generate_uid(entropy_srcs=[series])
        image.FrameOfReferenceUID = generate_uid(entropy_srcs=["frame"])
        image.Modality, image.SeriesNumber, image.InstanceNumber = modality, number, (index * 7) % 1000 + 1
        image.PatientID, image.PatientName, image.PatientBirthDate, image.PatientSex = "P1", "Phantom^Paul", "", "O"
        image.StudyID, image.StudyDate, image.StudyTime, image.AccessionNumber = "1", "20200101", "120000", ""
        image.ReferringPhysicianName = ""
        image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        image.ImageOrientationPatient = [round(float(value), 10) for value in (*across, *down)]
        image.ImagePositionPatient = [round(float(value), 8) for value in posterior[:3, 3] + index * spacing[2] * step]
        image.PixelSpacing = [round(float(spacing[1]), 8), round(float(spacing[0]), 8)]
        image.SliceThickness = round(float(spacing[2]), 8)
        image.Rows, image.Columns = voxels.shape[1], voxels.shape[0]
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 1
        image.RescaleSlope, image.RescaleIntercept = slope(index), intercept(index)
        image.PixelData = np.ascontiguousarray(voxels[..., index].T.astype("<i2")).tobytes()
        change(index, image)
        image.save_as(path, enforce_file_format=True)
        files.append(path)
    return files
