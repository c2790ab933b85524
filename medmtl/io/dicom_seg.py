"""DICOM Segmentation objects (SEG) through highdicom: a mask as an image archive stores it."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medmtl.files import written_whole
from medmtl.io.stored import LPS_TO_RAS
from medmtl.version import __version__

if TYPE_CHECKING:
    from pydicom import Dataset

MAKER = "medmtl"
SERIES_NUMBER = 9000  # far above what scanners use


def write_segmentation(
    path: Path, mask: np.ndarray, affine: np.ndarray, slices: Sequence["Dataset"], label: str
) -> None:
    """Write a mask whole, as a binary segment that refers to the series which it was made from.

    Patient and study are those of the series. The segment's property is `Tissue`, the widest there is: whether the
    organ of interest is an organ or a tumour is in its label. The object's identifiers follow from the series,
    the label and the mask, so that the same result twice is one object in an archive.

    Args:
        path: the file, ending in `.dcm`.
        mask: `(H, W, D)` uint8, 1 is foreground.
        affine: `(4, 4)`, from voxel indices to mm, right-anterior-superior.
        slices: the header of `open_dicom`.
        label: name of the segment, at most 64 characters.
    """
    import highdicom
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    volume = highdicom.Volume(
        np.ascontiguousarray(mask.transpose(2, 1, 0)),
        (LPS_TO_RAS @ affine)[:, [2, 1, 0, 3]],  # highdicom's axes are slices, rows, columns
        coordinate_system="PATIENT",
        frame_of_reference_uid=slices[0].FrameOfReferenceUID,
    )
    segment = highdicom.seg.SegmentDescription(
        segment_number=1,
        segment_label=label[:64],
        segmented_property_category=codes.SCT.Tissue,
        segmented_property_type=codes.SCT.Tissue,
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=MAKER, family=codes.DCM.ArtificialIntelligence, version=__version__
        ),
    )
    origin = [str(slices[0].SeriesInstanceUID), label, __version__]
    content = hashlib.sha256(np.packbits(mask.astype(bool)).tobytes()).hexdigest()
    made = highdicom.seg.Segmentation(
        source_images=list(slices),
        pixel_array=volume,
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[segment],
        series_instance_uid=generate_uid(entropy_srcs=[*origin, "series"]),
        series_number=SERIES_NUMBER,
        sop_instance_uid=generate_uid(entropy_srcs=[*origin, content]),
        instance_number=1,
        manufacturer=MAKER,
        manufacturer_model_name=MAKER,
        software_versions=__version__,
        device_serial_number="0",
        series_description=f"{MAKER}: {label}"[:64],
    )
    with written_whole(path) as beside:
        made.save_as(beside)
