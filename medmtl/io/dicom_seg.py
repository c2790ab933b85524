"""DICOM Segmentation objects (SEG) through highdicom: a mask as an image archive stores it, with a segment a class."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medmtl.files import written_whole
from medmtl.io.stored import LPS_TO_RAS
from medmtl.version import __version__

if TYPE_CHECKING:
    from pydicom import Dataset

MAKER = "medmtl"
LONGEST = 64  # characters of a label
SERIES_NUMBER = 9000  # far above what scanners use


def write_segmentation(
    path: Path,
    mask: np.ndarray,
    affine: np.ndarray,
    slices: Sequence["Dataset"],
    segments: Mapping[str, Collection[int]],
) -> None:
    """Write a mask whole, as binary segments that refer to the series which it was made from.

    Patient and study are those of the series. The segments' property is `Tissue`, the widest there is: whether an
    organ of interest is an organ or a tumour is in its label. The object's identifiers follow from the series,
    the labels and the mask, so that the same result twice is one object in an archive.

    Args:
        path: the file, ending in `.dcm`.
        mask: `(H, W, D)`, label values, 0 outside.
        affine: `(4, 4)`, from voxel indices to mm, right-anterior-superior.
        slices: the data sets of the volume, of the header of `open_dicom`.
        segments: name -> its label values in the mask. Segments are numbered from 1 in this order, and overlap where
            they share a value. A name is a segment's label, of which DICOM holds 64 characters.
    """
    import highdicom
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    # One mask at a time is in memory, but for segments that overlap, which highdicom wants beside each other.
    several = sum(len(set(values)) for values in segments.values()) > len(set().union(*segments.values()))
    numbers = list(range(1, len(segments) + 1))
    channels = (len(segments),) if several else ()
    voxels = np.zeros((*mask.shape[::-1], *channels), np.uint8 if several else np.min_scalar_type(len(segments)))
    content = hashlib.sha256()
    for number, values in zip(numbers, segments.values(), strict=True):
        own = np.isin(mask, list(values))
        content.update(np.packbits(own).tobytes())
        if several:
            voxels[..., number - 1] = own.T
        else:
            voxels[own.T] = number
    volume = highdicom.Volume(
        voxels,
        (LPS_TO_RAS @ affine)[:, [2, 1, 0, 3]],  # highdicom's axes are slices, rows, columns
        coordinate_system="PATIENT",
        frame_of_reference_uid=slices[0].FrameOfReferenceUID,
        channels={"SegmentNumber": numbers} if several else None,
    )
    label = ", ".join(segments)
    origin = [str(slices[0].SeriesInstanceUID), label, __version__]
    made = highdicom.seg.Segmentation(
        source_images=list(slices),
        pixel_array=volume,
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[
            highdicom.seg.SegmentDescription(
                segment_number=number,
                segment_label=name[:LONGEST],
                segmented_property_category=codes.SCT.Tissue,
                segmented_property_type=codes.SCT.Tissue,
                algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
                algorithm_identification=highdicom.AlgorithmIdentificationSequence(
                    name=MAKER, family=codes.DCM.ArtificialIntelligence, version=__version__
                ),
            )
            for number, name in zip(numbers, segments, strict=True)
        ],
        series_instance_uid=generate_uid(entropy_srcs=[*origin, "series"]),
        series_number=SERIES_NUMBER,
        sop_instance_uid=generate_uid(entropy_srcs=[*origin, content.hexdigest()]),
        instance_number=1,
        manufacturer=MAKER,
        manufacturer_model_name=MAKER,
        software_versions=__version__,
        device_serial_number="0",
        series_description=f"{MAKER}: {label}"[:LONGEST],
    )
    with written_whole(path) as beside:
        made.save_as(beside)
