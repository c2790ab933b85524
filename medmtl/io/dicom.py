"""DICOM: the series of a folder, and a series as one volume, its slices sorted, checked and rescaled each."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medmtl.errors import DataError
from medmtl.io.stored import LPS_TO_RAS, Stored, check_shape, reason

if TYPE_CHECKING:
    from pydicom import Dataset

SUFFIXES = (".dcm", ".ima")
INSTALL = "pip install 'medmtl[dicom]'"
MODALITIES = {"CT": "CT", "MR": "MR", "PT": "PET"}
NO_IMAGES = ("SEG", "RTDOSE")  # have pixels, yet are none
DIRECTORY = "1.2.840.10008.1.3.10"  # class of DICOMDIR, the table of contents of a disc
LOCALIZER = "LOCALIZER"  # among the values of ImageType
SUV = "GML"  # unit of PET in standardised uptake values, g/ml
PLACE_TOLERANCE = 0.1  # of the slice spacing, between a slice and its place on an even grid: headers are rounded


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its suffix or its first bytes."""
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


class Series(NamedTuple):
    """A series, as the headers of its files describe it.

    Attributes:
        uid: unique identifier; None for files that cannot be read, for which `open_dicom` raises the reason.
        number: of the series within the examination.
        study: unique identifier of the examination; None where no header has it.
        localizer: whether all its images are marked as localizers (scouts), made to plan the other series.
    """

    uid: str | None
    number: str = ""
    study: str | None = None
    localizer: bool = False


def series_of(files: Sequence[Path]) -> list[Series]:
    """The image series of the DICOM files of a folder, sorted by number.

    What is no image, such as reports and tables of contents, is left out. Files that cannot be read are a series only
    where there is no other.
    """
    try:
        from pydicom import dcmread
    except ImportError:
        return [Series(None)]
    wanted = ["SeriesInstanceUID", "SeriesNumber", "StudyInstanceUID", "ImageType", "Modality", "Rows"]
    found: dict[str, Series] = {}
    broken = False
    for file in files:
        try:
            header = dcmread(file, stop_before_pixels=True, specific_tags=list(wanted))
            if _is_image(header):
                uid, study = str(header.SeriesInstanceUID), header.get("StudyInstanceUID")
                localizer = LOCALIZER in (header.get("ImageType") or ()) and (uid not in found or found[uid].localizer)
                number = str(header.get("SeriesNumber") or 0)
                found[uid] = Series(uid, number, None if study is None else str(study), localizer)
        except Exception:
            broken = True
    if broken and not found:
        return [Series(None)]
    return sorted(found.values(), key=lambda one: (one.number.rjust(12), one.uid))


def open_dicom(path: Path, series: str | None) -> Stored:
    """Open a series as one volume.

    Args:
        path: the folder of the series, or a file that holds all its slices (enhanced, multi-frame).
        series: its unique identifier; None for the only one of the folder.

    Returns:
        The volume, axes columns, rows and slices along the normal, in the unit that each slice's rescaling gives;
        its `header` is the data sets in the order of the slices, without their pixels.

    Raises:
        DataError: pydicom is not installed; a file is broken or compressed in a way that cannot be read; slices are
            missing, doubled, unevenly spaced, or of several sizes or orientations.
    """
    headers = _headers(path, series)
    if len(headers) == 1 and int(headers[0][1].get("NumberOfFrames") or 1) > 1:
        return _read_frames(*headers[0])
    where = f"{path} (series {headers[0][1].get('SeriesNumber') or series})"
    if len(headers) == 1:
        raise DataError(f"{where} is a single slice of a series", fix="point to the folder that holds all of them")
    _check_alike(where, [header for _, header in headers])
    order, affine = _stacked(where, [header for _, header in headers])
    files, slices = zip(*(headers[index] for index in order), strict=True)
    shape = (int(slices[0].Columns), int(slices[0].Rows), len(slices))
    check_shape(where, shape)

    def part(_: int, place: slice) -> NDArray[Any]:
        return np.stack([_values(file).T for file in files[place]], axis=-1)

    return Stored(where, shape, 1, affine, part, tuple(slices), *_described(slices[0]))


def _headers(path: Path, series: str | None) -> list[tuple[Path, "Dataset"]]:
    """The files of a series with their headers."""
    try:
        from pydicom import dcmread
    except ImportError:
        raise DataError(f"{path} is DICOM, which needs pydicom", fix=INSTALL) from None
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.is_file() and is_dicom(file))
    headers: list[tuple[Path, Dataset]] = []
    for file in files:
        try:
            header = dcmread(file, stop_before_pixels=True)
        except Exception as error:
            raise DataError(f"{file} cannot be read ({reason(error)})", fix="replace or remove the file") from None
        if header.file_meta.get("MediaStorageSOPClassUID") == DIRECTORY:
            continue
        if "SeriesInstanceUID" not in header:
            raise DataError(f"{file} does not name its series (is it truncated?)", fix="replace or remove the file")
        if series in (None, header.SeriesInstanceUID) and _is_image(header):
            headers.append((file, header))
    if not headers:
        raise DataError(f"{path} holds no DICOM images", fix="point to a folder that does")
    uids = {str(header.SeriesInstanceUID) for _, header in headers}
    if len(uids) > 1:
        raise DataError(f"{path} holds {len(uids)} series", fix="move each to a folder of its own")
    return headers


def _is_image(header: "Dataset") -> bool:
    return "Rows" in header and header.get("Modality") not in NO_IMAGES


def _check_alike(where: str, slices: Sequence["Dataset"]) -> None:
    """Check that slices can be stacked: one number a pixel, one size, one orientation, one pixel spacing."""
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        missing = sum(not one.get(name) for one in slices)
        if missing:
            raise DataError(f"{where} has slices without {name} ({missing} of {len(slices)})", fix="export it again")
    if any(int(one.get("SamplesPerPixel") or 1) != 1 for one in slices):
        raise DataError(f"{where} holds colours", fix="use a series of one number a pixel")
    first = slices[0]
    sizes = {(int(one.Columns), int(one.Rows)) for one in slices}
    if len(sizes) > 1:
        mixed = ", ".join(f"{columns} x {rows}" for columns, rows in sorted(sizes))
        raise DataError(f"{where} mixes slices of several sizes ({mixed})", fix="keep those of one scan")
    for name, what in (("ImageOrientationPatient", "orientations"), ("PixelSpacing", "pixel spacings")):
        apart = max(np.abs(np.subtract(one[name].value, first[name].value, dtype=float)).max() for one in slices)
        if not apart < 1e-3:
            raise DataError(f"{where} mixes slices of several {what}", fix="keep those of one scan")


def _stacked(where: str, slices: Sequence["Dataset"]) -> tuple[list[int], np.ndarray]:
    """The order of slices along their normal, and the affine of the stack, right-anterior-superior.

    Raises:
        DataError: slices are missing, doubled, or not evenly spaced along a line.
    """
    across, down = np.reshape(np.asarray(slices[0].ImageOrientationPatient, float), (2, 3))
    places = np.array([one.ImagePositionPatient for one in slices], float)
    normal = np.cross(across, down)
    depth = places @ normal
    order = np.argsort(depth, kind="stable")
    places, gaps = places[order], np.diff(depth[order])
    if not np.isfinite(gaps).all() or gaps.max() < 1e-3:
        raise DataError(f"{where} has {len(slices)} slices at one place", fix="keep one volume of the series")
    usual = float(np.median(gaps[gaps > 1e-3]))
    doubled = int((gaps < PLACE_TOLERANCE * usual).sum())
    if doubled:
        raise DataError(
            f"{where} has slices at the place of another ({doubled} of {len(slices)}; several echoes or time points?)",
            fix="keep one volume of the series",
        )
    missing = int((np.round(gaps / usual) - 1).clip(0).sum())
    if missing:
        after = int(np.argmax(gaps))
        raise DataError(
            f"{where} lacks {missing} slice{'s' * (missing > 1)}: there are {gaps[after]:.2f} mm between two (usually "
            f"{usual:.2f} mm), after {slices[order[after]].filename}",
            fix="export the series again",
        )
    step = (places[-1] - places[0]) / (len(slices) - 1)
    off = places - (places[0] + np.arange(len(slices))[:, None] * step)
    if np.abs(off @ normal).max() > PLACE_TOLERANCE * usual:
        raise DataError(
            f"{where} has slices {gaps.min():.2f} to {gaps.max():.2f} mm apart", fix="resample it to an even spacing"
        )
    if np.linalg.norm(off, axis=1).max() > PLACE_TOLERANCE * usual:
        raise DataError(f"{where} has slices that are not stacked along a line", fix="export the series again")
    height, width = map(float, slices[0].PixelSpacing)
    affine = np.eye(4)
    affine[:3] = np.column_stack([across * width, down * height, step, places[0]])
    return order.tolist(), LPS_TO_RAS @ affine


def _values(file: Path) -> np.ndarray:
    """The pixels of a slice as `(rows, columns)`, rescaled by its header."""
    from pydicom import dcmread
    from pydicom.pixels.processing import apply_modality_lut

    image = dcmread(file)
    _check_decoder(file, image)
    try:
        return apply_modality_lut(image.pixel_array, image)
    except Exception as error:
        raise DataError(f"{file} cannot be read ({reason(error)})", fix="replace the file") from None


def _check_decoder(file: Path, image: "Dataset") -> None:
    from pydicom.pixels.decoders.base import get_decoder

    syntax = image.file_meta.TransferSyntaxUID
    if not syntax.is_compressed:
        return
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        available = False
    if not available:
        raise DataError(f"{file} is compressed ({syntax.name})", fix="pip install pylibjpeg pylibjpeg-libjpeg")


def _read_frames(file: Path, header: "Dataset") -> Stored:
    """Read a file that holds all slices of a volume."""
    try:
        import highdicom
    except ImportError:
        raise DataError(f"{file} has several frames, which needs highdicom", fix=INSTALL) from None
    _check_decoder(file, header)
    frames = highdicom.imread(file)
    # Rescaled and no more, as single slices are: neither inverted for the eye nor mapped to other units.
    volume = frames.get_volume(dtype=np.float32, apply_real_world_transform=False, apply_presentation_lut=False)
    affine = LPS_TO_RAS @ volume.affine[:, [2, 1, 0, 3]]  # highdicom's axes are slices, rows, columns
    array = volume.array.transpose(2, 1, 0)
    check_shape(str(file), array.shape)
    return Stored(str(file), array.shape, 1, affine, lambda _, place: array[..., place], (header,), *_described(header))


def _described(header: "Dataset") -> tuple[str, tuple[str, ...]]:
    """Modality and warnings of a series."""
    modality = MODALITIES.get(str(header.get("Modality")), "other")
    unit = str(header.get("Units", "unknown"))
    if modality == "PET" and unit != SUV:
        return modality, (f"PET values are taken as stored, in {unit}, and not converted to SUV",)
    return modality, ()
