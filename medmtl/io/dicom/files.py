"""The series of a folder, the headers of a series, and the pixels of its frames."""

import io
import logging
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from medmtl.errors import DataError
from medmtl.extras import how_to_install
from medmtl.io.stored import reason

if TYPE_CHECKING:
    from pydicom import Dataset

SUFFIXES = (".dcm", ".ima")
NO_IMAGES = ("SEG", "RTDOSE")  # have pixels, yet are none
DIRECTORY = "1.2.840.10008.1.3.10"  # class of DICOMDIR, the table of contents of a disc
LOCALIZER = "LOCALIZER"  # among the values of ImageType
MOST_DEFLATED = 1 << 28  # bytes of a file whose transfer syntax deflates it as a whole, which pydicom unpacks at once


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
        import pydicom  # noqa: F401
    except ImportError:
        return [Series(None)]
    wanted = ["SeriesInstanceUID", "SeriesNumber", "StudyInstanceUID", "ImageType", "Modality", "Rows"]
    found: dict[str, Series] = {}
    broken = False
    for file in files:
        try:
            header = _read(file, stop_before_pixels=True, specific_tags=list(wanted))
            if is_image(header):
                uid, study = str(header.SeriesInstanceUID), header.get("StudyInstanceUID")
                localizer = LOCALIZER in (header.get("ImageType") or ()) and (uid not in found or found[uid].localizer)
                number = str(header.get("SeriesNumber") or 0)
                found[uid] = Series(uid, number, None if study is None else str(study), localizer)
        except Exception:
            broken = True
    if broken and not found:
        return [Series(None)]
    return sorted(found.values(), key=lambda one: (one.number.rjust(12), one.uid))


def headers(path: Path, series: str | None) -> list[tuple[Path, "Dataset"]]:
    """The files of a series with their headers.

    Args:
        path: the folder of the series, or a file that holds all its slices.
        series: its unique identifier; None for the only one of the folder.

    Raises:
        DataError: pydicom is not installed, a file is broken, or there is not one series.
    """
    try:
        import pydicom  # noqa: F401
    except ImportError:
        raise DataError(f"{path} is DICOM, which needs pydicom", fix=how_to_install("dicom")) from None
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.is_file() and is_dicom(file))
    found: list[tuple[Path, Dataset]] = []
    for file in files:
        try:
            header = _read(file, stop_before_pixels=True)
        except Exception as error:
            raise DataError(f"{file} cannot be read ({reason(error)})", fix="replace or remove the file") from None
        if header.file_meta.get("MediaStorageSOPClassUID") == DIRECTORY:
            continue
        if "SeriesInstanceUID" not in header:
            raise DataError(f"{file} does not name its series (is it truncated?)", fix="replace or remove the file")
        if series in (None, header.SeriesInstanceUID) and is_image(header):
            found.append((file, header))
    if not found:
        raise DataError(f"{path} holds no DICOM images", fix="point to a folder that does")
    uids = {str(header.SeriesInstanceUID) for _, header in found}
    if len(uids) > 1:
        raise DataError(f"{path} holds {len(uids)} series", fix="move each to a folder of its own")
    return found


def is_image(header: "Dataset") -> bool:
    """Whether a header is that of an image of a patient."""
    return "Rows" in header and header.get("Modality") not in NO_IMAGES


def whole(file: Path) -> "Dataset":
    """A file with its pixels, which are not decoded yet.

    Raises:
        DataError: the file is broken, or compressed in a way that cannot be read.
    """
    try:
        image = _read(file)
    except Exception as error:
        raise DataError(f"{file} cannot be read ({reason(error)})", fix="replace the file") from None
    _check_decoder(file, image)
    return image


def pixels(file: Path, image: "Dataset", index: int, rescale: tuple[float, float] | None) -> np.ndarray:
    """The pixels of a frame.

    Args:
        file: for the message.
        image: what `whole` gave of it.
        index: which of its frames, from 0.
        rescale: slope and intercept of this frame; None where the file's header has them for all, or none.

    Returns:
        `(rows, columns)`, rescaled and no more: neither inverted for the eye nor mapped to other units.

    Raises:
        DataError: they are damaged.
    """
    from pydicom.pixels.processing import apply_modality_lut
    from pydicom.pixels.utils import pixel_array

    try:
        with quiet():
            values = pixel_array(image, index=index)
            if rescale is None:
                return apply_modality_lut(values, image)
            slope, intercept = rescale
            return values * slope + intercept
    except Exception as error:
        raise DataError(f"{file} cannot be read ({reason(error)})", fix="replace the file") from None


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what pydicom remarks on every odd value of a header off the screen: what matters is an error of ours."""
    log = logging.getLogger("pydicom")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


class _Bounded(io.BufferedReader):
    """A file of which pydicom does not unpack more than it may: it reads all that is left only to unpack that."""

    def read(self, size: int | None = -1, /) -> bytes:
        found = super().read(size)
        if size is None or size < 0:
            _check_deflated(found)
        return found


def _read(file: Path, **options: Any) -> "Dataset":
    from pydicom import dcmread

    with quiet(), _Bounded(io.FileIO(file)) as stream:
        return dcmread(stream, **options)


def _check_deflated(content: bytes) -> None:
    inflate, unpacked = zlib.decompressobj(-zlib.MAX_WBITS), 0
    blocks = memoryview(content)
    with suppress(zlib.error):  # which pydicom says
        for start in range(0, len(blocks), io.DEFAULT_BUFFER_SIZE):
            block: bytes | memoryview = blocks[start : start + io.DEFAULT_BUFFER_SIZE]
            while block and not inflate.eof:
                unpacked += len(inflate.decompress(block, 1 << 20))
                if unpacked > MOST_DEFLATED:
                    raise ValueError(f"it unpacks to more than {MOST_DEFLATED >> 20} MB")
                block = inflate.unconsumed_tail


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
        raise DataError(
            f"{file} is compressed ({syntax.name})", fix=f"{how_to_install('dicom')}, or export it without compression"
        )
