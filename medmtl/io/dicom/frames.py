"""Frames: every plane of a series with its place in the patient, whichever way its files hold them."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medmtl.errors import DataError
from medmtl.io.dicom.mosaic import is_mosaic, tiles

if TYPE_CHECKING:
    from pydicom import Dataset

GEOMETRY = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")


class Frame(NamedTuple):
    """A plane of a series.

    Attributes:
        file: the file that holds it.
        header: of that file.
        picture: its number within the file, from 0.
        position: centre of its first pixel, mm, left-posterior-superior, `(3,)`.
        across: unit vector along a row, `(3,)`.
        down: unit vector along a column, `(3,)`.
        spacing: mm between pixels along a row and along a column.
        shape: columns and rows.
        number: of the image in its series, as the scanner counts.
        corner: column and row in the picture where it starts, which is not 0 in a mosaic.
        rescale: slope and intercept where they are this frame's own.
    """

    file: Path
    header: "Dataset"
    picture: int
    position: NDArray[np.float64]
    across: NDArray[np.float64]
    down: NDArray[np.float64]
    spacing: tuple[float, float]
    shape: tuple[int, int]
    number: int
    corner: tuple[int, int] = (0, 0)
    rescale: tuple[float, float] | None = None


def frames_of(where: str, files: list[tuple[Path, "Dataset"]]) -> list[Frame]:
    """All planes of a series: of single slices, of multi-frame files, and of mosaics, in the order that they were made.

    Args:
        where: the series, for messages.
        files: its files with their headers.

    Raises:
        DataError: frames lack their place in the patient, or have colours.
    """
    if any(_coloured(header) for _, header in files):
        raise DataError(f"{where} holds colours", fix="use a series of one number a pixel")
    planes = [(file, header, plane) for file, header in files for plane in _planes(header)]
    for name in GEOMETRY:
        missing = sum(not plane.get(name) for _, _, plane in planes)
        if missing:
            raise DataError(f"{where} has slices without {name} ({missing} of {len(planes)})", fix="export it again")
    found = []
    for file, header, plane in planes:
        row, column = np.reshape(np.asarray(plane["ImageOrientationPatient"], float), (2, 3))
        height, width = map(float, plane["PixelSpacing"])
        frame = Frame(
            file,
            header,
            plane["index"],
            np.asarray(plane["ImagePositionPatient"], float),
            row,
            column,
            (width, height),
            (int(header.Columns), int(header.Rows)),
            int(header.get("InstanceNumber") or 0),
            rescale=plane.get("rescale"),
        )
        found += [frame._replace(**tile) for tile in tiles(where, header)] if is_mosaic(header) else [frame]
    return sorted(_once(found), key=lambda one: (one.number, one.file.name, one.picture))


def _coloured(header: "Dataset") -> bool:
    return int(header.get("SamplesPerPixel") or 1) != 1 or "PALETTE" in str(header.get("PhotometricInterpretation"))


def _planes(header: "Dataset") -> Iterator[dict[str, Any]]:
    """The geometry of each picture of a file; of a multi-frame file from its functional groups, which are nested."""
    plain = {name: header.get(name) for name in GEOMETRY}
    own = header.get("PerFrameFunctionalGroupsSequence")
    if not own:
        for index in range(int(header.get("NumberOfFrames") or 1)):
            yield {**plain, "index": index}
        return
    shared = (header.get("SharedFunctionalGroupsSequence") or [{}])[0]
    for index, groups in enumerate(own):
        plane = {**plain, "index": index}
        for sequence, name in (
            ("PlanePositionSequence", "ImagePositionPatient"),
            ("PlaneOrientationSequence", "ImageOrientationPatient"),
            ("PixelMeasuresSequence", "PixelSpacing"),
        ):
            plane[name] = _item(groups, shared, sequence).get(name) or plane[name]
        values = _item(groups, shared, "PixelValueTransformationSequence")
        if "RescaleSlope" in values:
            plane["rescale"] = (float(values["RescaleSlope"].value), float(values.get("RescaleIntercept") or 0))
        yield plane


def _item(groups: Any, shared: Any, sequence: str) -> Any:
    """The item of a functional group, of the frame's own or of the shared ones."""
    return next((each.get(sequence)[0] for each in (groups, shared) if each.get(sequence)), {})


def _once(frames: list[Frame]) -> list[Frame]:
    """Frames without those of a file that lies there twice."""
    known = {(str(one.header.get("SOPInstanceUID")), one.picture, *one.corner, *one.position): one for one in frames}
    return list(known.values())
