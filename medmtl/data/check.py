"""The checks before training: every file is there, readable, finite, and label and image share one grid."""

import logging
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from medmtl.data.case import Case, LabelFile
from medmtl.errors import DataError
from medmtl.io.volume import AFFINE_TOLERANCE_MM, Volume
from medmtl.io.volume import read_volume as read

logger = logging.getLogger(__name__)


def check_task(name: str, cases: Sequence[Case], organ: Collection[int], declared: Collection[int] | None) -> None:
    """Read all cases of a task and stop at the first that cannot be used.

    Args:
        name: the task.
        cases: its labelled cases.
        organ: label values of the organ of interest.
        declared: all label values that may occur; None if any may.

    Raises:
        DataError: names the task, the case and the file, and says what to do. A single case without foreground is
            legitimate and only warned of; a task without any is not.
    """
    if len(check_cases(name, cases, organ, declared)) == len(cases):
        raise DataError(
            f"task {name}: no case has foreground (label values {sorted(organ)})",
            fix="correct `organ` or the labels",
        )


def check_cases(
    name: str, cases: Sequence[Case], organ: Collection[int], declared: Collection[int] | None
) -> list[str]:
    """Read some cases of a task, as `check_task` does with all.

    Returns:
        The cases without foreground, which are warned of.

    Raises:
        DataError: a case cannot be used.
    """
    empty = [case.name for case in cases if not _check_case(name, case, organ, declared)]
    for case in empty:
        logger.warning("task %s, case %s: no foreground; its Dice is NaN and counted as undefined", name, case)
    return empty


def read_volume(owner: str, case: Case, path: Path) -> Volume:
    """Read a file of a case.

    Args:
        owner: the task or folder, for messages.
        case: the case that the file belongs to.
        path: the file.

    Raises:
        DataError: the file is missing or unreadable.
    """
    where = f"{owner}, case {case.name}: {path}"
    try:
        return read(path)
    except FileNotFoundError:
        raise DataError(f"{where} is missing", fix="restore the file or take the case out of the dataset") from None
    except Exception as error:  # the libraries raise a dozen kinds for a broken file
        reason = " ".join(str(error).split())
        raise DataError(f"{where} cannot be read ({reason})", fix="replace the file") from error


def check_image(owner: str, case: Case) -> Volume:
    """Read an image and check that it is a finite volume that has the channels to use.

    A foreign image may hold one value everywhere, of which z-scoring makes 0; of a case with labels that is refused,
    since it shows nothing of what they claim.

    Returns:
        The image, or the first file of one whose channels are files.

    Raises:
        DataError: a file is missing, unreadable, not three-dimensional, not finite, or on another grid than the first;
            or a channel is lacking, or constant though the case has labels.
    """
    if len(case.images) == 1:
        return _check_file(owner, case, case.images[0], case.channels)
    if max(case.channels) >= len(case.images):
        fault = f"has {len(case.images)} channels, channel {max(case.channels)} is asked for"
        raise DataError(f"{owner}, case {case.name}: {case.images[0]} {fault}", fix="set `channel`")
    first, *others = [_check_file(owner, case, path, [0]) for path in case.image_files]
    for path, volume in zip(case.image_files, (first, *others), strict=True):
        if volume.voxels.ndim == 4 and volume.shape[3] > 1:
            fault = f"{path} has {volume.shape[3]} channels, where each is a file"
            raise DataError(f"{owner}, case {case.name}: {fault}", fix="split it, or name it alone")
    for path, other in zip(case.image_files[1:], others, strict=True):
        _check_grid(f"{owner}, case {case.name}: {path}", other, first, f"channel {case.image_files[0].name}")
    return first


def _check_file(owner: str, case: Case, path: Path, used: Sequence[int]) -> Volume:
    image = read_volume(owner, case, path)
    voxels, where = image.voxels, f"{owner}, case {case.name}: {path}"
    channels = voxels.shape[3] if voxels.ndim == 4 else 1
    if voxels.ndim not in (3, 4) or min(voxels.shape) < 1:
        raise DataError(f"{where} has shape {voxels.shape}", fix="use volumes of three dimensions")
    if voxels.dtype.kind not in "biuf":
        raise DataError(f"{where} holds {voxels.dtype} and not numbers", fix="save one number a voxel")
    if max(used) >= channels:
        raise DataError(f"{where} has {channels} channels, channel {max(used)} is asked for", fix="set `channel`")
    if not np.isfinite(voxels).all():
        raise DataError(f"{where} holds values that are not finite", fix="repair or remove the case")
    if not np.isfinite(image.affine).all() or abs(np.linalg.det(image.affine[:3, :3])) < 1e-9:
        raise DataError(f"{where} has an affine that cannot be inverted", fix="repair its header")
    for number in used if case.labels else ():
        channel = voxels[..., number] if voxels.ndim == 4 else voxels
        if (channel == channel.flat[0]).all():
            fault = f"holds {channel.flat[0].item():g} everywhere: there is nothing to segment"
            raise DataError(f"{where} {fault}", fix="replace or remove the case")
    return image


def _check_grid(where: str, volume: Volume, image: Volume, other: str) -> None:
    if volume.shape[:3] != image.shape[:3]:
        raise DataError(
            f"{where} has shape {volume.shape[:3]}, its {other} {image.shape[:3]}",
            fix="resample one to the other's grid",
        )
    if not np.allclose(volume.affine, image.affine, atol=AFFINE_TOLERANCE_MM):
        raise DataError(f"{where} has another affine than its {other}", fix="correct the header of one of them")


def _check_case(task: str, case: Case, organ: Collection[int], declared: Collection[int] | None) -> bool:
    """Check one case; whether it has foreground."""
    owner = f"task {task}"
    image = check_image(owner, case)
    if not case.labels:
        raise DataError(f"{owner}, case {case.name} has no label", fix="take the case out of the dataset")
    return any([_check_label(owner, case, label, image, organ, declared) for label in case.labels])


def _check_label(
    owner: str, case: Case, label: LabelFile, image: Volume, organ: Collection[int], declared: Collection[int] | None
) -> bool:
    """Check one file of the labels; whether it has foreground."""
    volume = read_volume(owner, case, label.path)
    voxels, where = volume.voxels, f"{owner}, case {case.name}: label {label.path}"
    if voxels.ndim != 3:
        raise DataError(f"{where} has shape {voxels.shape}", fix="use labels of three dimensions")
    _check_grid(where, volume, image, "image")
    if label.value is not None:  # the mask of one organ
        return label.value in organ and bool((voxels > 0).any())
    values = np.unique(voxels)
    unknown = [value.item() for value in values if declared is not None and value not in declared]
    if unknown:
        raise DataError(
            f"{where} holds the values {unknown[:5]}, which are not declared (these are: {sorted(declared or ())})",
            fix="declare or correct them",
        )
    return bool(np.isin(values, list(organ)).any())
