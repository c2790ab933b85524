"""Reader: an input in, its volume out on its own grid, or one line that says why not."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor

from medmtl.errors import DataError
from medmtl.inference.dicom import read_dicom
from medmtl.inference.inputs import Input
from medmtl.inference.itk import read_itk
from medmtl.inference.nifti import read_nifti
from medmtl.inference.voxels import Stored, check_grid, gather, reason


@dataclass(frozen=True)
class Scan:
    """A volume on its own grid.

    Attributes:
        name: name of the input, of which the names of its outputs are made.
        input: where it came from.
        image: `(1, H, W, D)` float32 in the file's storage order, with the affine from voxel indices to mm,
            right-anterior-superior.
        modality: CT, MR, PET or other, as the list or the file says; None if neither does.
        warnings: what a user should know about this volume.
        header: what the writer needs of the file; see the module of its kind.
    """

    name: str
    input: Input
    image: MetaTensor
    modality: str | None
    warnings: tuple[str, ...] = ()
    header: object = None


def read(source: Input) -> Scan:
    """Read a volume.

    Args:
        source: one of `find_inputs`.

    Raises:
        DataError: one line that names the file and what is wrong with it: it is missing, broken, no volume of real
            numbers, not finite, constant, or its grid has no size or no right angles.
    """
    try:
        stored = _stored(source)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{source.path} is missing", fix="correct the path") from None
    except PermissionError:
        raise DataError(f"{source.path} may not be read", fix="ask for permission to read it") from None
    except MemoryError:
        raise DataError(f"{source.path} does not fit into memory", fix="crop it") from None
    except Exception as error:  # nibabel, SimpleITK and pydicom raise a dozen kinds for a broken file
        raise DataError(f"{source.path} cannot be read ({reason(error)})", fix="replace the file") from error
    return _scan(source, stored)


def scan_of(image: np.ndarray | torch.Tensor, affine: np.ndarray | None = None) -> Scan:
    """A volume in memory as a scan, after the same checks as for a file.

    Args:
        image: `(H, W, D)` or `(1, H, W, D)`, real numbers; it is copied.
        affine: `(4, 4)` from voxel indices to mm, right-anterior-superior; by default that of a `MetaTensor`.

    Raises:
        DataError: there is no affine, or see `read`.
    """
    where = "the image"
    if affine is None and isinstance(image, MetaTensor):
        affine = image.affine.numpy()
    if affine is None:
        raise DataError(f"{where} has no affine", fix="give the affine from voxel indices to mm")
    array = image.detach().cpu().numpy() if isinstance(image, torch.Tensor) else np.asarray(image)
    if array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    if array.dtype.kind not in "biuf":
        raise DataError(f"{where} holds {array.dtype} and not real numbers", fix="give one number a voxel")
    grid = np.array(affine, np.float64)
    if grid.shape != (4, 4):
        raise DataError(f"{where} has an affine of shape {grid.shape}", fix="give one of shape (4, 4)")
    voxels = gather(where, array.shape, lambda part: array[..., part])
    check_grid(where, grid, array.shape)
    return _scan(Input("image", Path("image"), "array"), Stored(voxels, grid, None))


def _stored(source: Input) -> Stored:
    if source.kind == "nifti":
        return read_nifti(source.path, source.volume or 0)
    if source.kind == "dicom":
        return read_dicom(source.path, source.series)
    return read_itk(source.path, source.volume or 0)


def _scan(source: Input, stored: Stored) -> Scan:
    image = MetaTensor(torch.from_numpy(stored.voxels)[None], affine=torch.from_numpy(stored.affine))
    modality, warnings = source.modality or stored.modality, stored.warnings
    if stored.modality not in (None, modality):
        warnings += (f"the list says {modality}, the file {stored.modality}: the list is believed",)
    return Scan(source.name, source, image, modality, warnings, stored.header)
