"""Volumes of every kind of file: opened with one set of errors, for training and prediction alike."""

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmtl.errors import ALLOW_MORE, MANY, DataError, MedMTLError, RunError
from medmtl.io.dicom.series import open_dicom
from medmtl.io.input import Kind, kind_of
from medmtl.io.itk import READERS, open_itk
from medmtl.io.neuroimaging import KINDS, open_nibabel
from medmtl.io.nifti import open_nifti, voxels_of
from medmtl.io.stored import Part, Stored, reason


@dataclass(frozen=True)
class Volume:
    """Voxels of a file's own type, and where they lie.

    Attributes:
        voxels: `(H, W, D)`, or `(H, W, D, C)` with channels, as stored.
        affine: from voxel indices to mm, right-anterior-superior, `(4, 4)` float64.
        warnings: see `Stored`.
    """

    voxels: NDArray[Any]
    affine: NDArray[np.float64]
    warnings: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along each axis."""
        return self.voxels.shape


@contextmanager
def opened(path: Path, kind: Kind | None = None, series: str | None = None) -> Iterator[Stored]:
    """Open an image file to read from; its voxels must be read within the block.

    Args:
        path: the file, or the folder of a DICOM series.
        kind: kind of file; None: by its suffix.
        series: unique identifier of the series in a DICOM folder.

    Raises:
        DataError: names the file and the reason in one line: it is missing, forbidden, broken, or not a
            volume of one real number a voxel; also where that shows within the block.
        RunError: the system lets this process open no more files.
    """
    stored: Stored | None = None
    try:
        _check_openable(path, kind or kind_of(path))
        with np.errstate(over="ignore", invalid="ignore"):  # what a hostile header comes to is checked
            stored = _open(path, kind or kind_of(path), series)
        seen: list[int] = []  # volumes of which voxels were read: what was not read needs no checksum
        yield replace(stored, part=partial(_part, stored.part, seen))
        if seen:
            stored.finish()
    except MedMTLError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path} is missing", fix="restore the file or correct the path") from None
    except PermissionError:
        raise DataError(f"{path} may not be read", fix="ask for permission to read it") from None
    except MemoryError:
        raise DataError(f"{path} does not fit into memory", fix="crop it") from None
    except Exception as error:  # nibabel, SimpleITK and pydicom raise a dozen kinds for a broken file
        if isinstance(error, OSError) and error.errno in MANY:  # no fault of this file
            raise RunError(f"{path}: {error.strerror}", fix=ALLOW_MORE) from None
        raise DataError(f"{path} cannot be read ({reason(error)})", fix="replace the file") from error
    finally:
        if stored is not None:
            stored.close()


def read_volume(path: Path) -> Volume:
    """Read all voxels of a file of a dataset, of their own type: label values, or an image as it is stored.

    Raises:
        DataError: see `opened`.
    """
    with opened(path) as stored:
        return Volume(stored.as_stored(), stored.affine, stored.warnings)


def extent_mm(path: Path) -> list[float]:
    """The length of a volume along each of its three axes in mm, from the header alone.

    Raises:
        DataError: see `opened`.
    """
    with opened(path) as stored:
        return (np.linalg.norm(stored.affine[:3, :3], axis=0) * stored.shape).tolist()


def files_of(path: Path) -> tuple[Path, ...]:
    """All files that a volume is made of: a header and the voxels beside it, or the files of a DICOM series.

    Args:
        path: the file, the header of a pair, or the folder of a DICOM series.

    Raises:
        DataError: the voxels are not where the header says.
        OSError: the file cannot be read.
    """
    suffix = path.suffix.lower()
    if path.is_dir():
        return tuple(sorted(each for each in path.rglob("*") if each.is_file()))
    if suffix == ".hdr":
        return path, voxels_of(path)
    if suffix == ".head":
        return path, Path(KINDS[suffix].filespec_to_file_map(str(path))["image"].filename)
    if suffix in READERS:
        return tuple(dict.fromkeys((path, *READERS[suffix](path).place.files)))
    return (path,)


def _part(read: Part, seen: list[int], volume: int, place: slice) -> NDArray[Any]:
    """Some slices of a volume, which is noted as seen."""
    seen.append(volume)
    return read(volume, place)


def _check_openable(path: Path, kind: Kind) -> None:
    """Check that opening a path neither waits for ever nor finds a folder.

    Raises:
        DataError: it is a folder, a pipe or a device, or a link to nothing.
    """
    if path.is_symlink() and not path.exists():
        raise DataError(f"{path} is missing (a link to {path.readlink()})", fix="restore the file or correct the path")
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode) and kind != "dicom":
        raise DataError(f"{path} cannot be read (it is a folder)", fix="name a file")
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise DataError(f"{path} cannot be read (it is a pipe or a device)", fix="name a file")


def _open(path: Path, kind: Kind, series: str | None) -> Stored:
    if kind == "nifti":
        return open_nifti(path) or open_nibabel(path)
    if kind == "nibabel":
        return open_nibabel(path)
    if kind == "dicom":
        return open_dicom(path, series)
    return open_itk(path)
