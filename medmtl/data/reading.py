"""Reading of a case: the image by the rules of `medmtl predict`, and its label on the image's grid."""

from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor

from medmtl.data.case import Case
from medmtl.data.classes import Classes
from medmtl.data.label import read_label
from medmtl.errors import DataError
from medmtl.io.input import Input, kind_of
from medmtl.io.reader import Stack, read_stack
from medmtl.losses.masked import UNKNOWN


def read_channels(case: Case, constant: bool = True) -> Stack:
    """Read the channels to use of an image.

    Args:
        case: the case.
        constant: whether a channel may hold one value in all voxels.

    Raises:
        DataError: a channel is missing; or see `read_stack`.
    """
    if len(case.images) > 1 and max(case.channels) >= len(case.images):
        raise DataError(
            f"{case.images[0]} is one of {len(case.images)} channels, counted from 0, and channel "
            f"{max(case.channels)} is wanted",
            fix="correct `channel`",
        )
    if len(case.images) == 1:
        places: list[tuple[Path, int | None]] = [(case.images[0], channel) for channel in case.channels]
    else:
        places = [(path, None) for path in case.image_files]
    parts = [Input(case.name, path, kind_of(path), volume=volume) for path, volume in places]
    return read_stack(parts, constant)


def load_image(case: Case) -> MetaTensor:
    """Load the channels to use of an image on its own grid, float32, `(C, H, W, D)`."""
    stack = read_channels(case)
    return MetaTensor(torch.from_numpy(stack.voxels), affine=torch.from_numpy(stack.affine))


def load_label(case: Case, classes: Classes, image: MetaTensor, ignore: int | None = None) -> MetaTensor:
    """Load the labels of a case as numbers of parts, see `Classes`.

    Args:
        case: the case.
        classes: what the label values mean.
        image: the case's image on its own grid; the label takes over its affine, so that rounding in their headers,
            which the checks before training allow, cannot tell them apart.
        ignore: label value of voxels without a ground truth.

    Returns:
        `(1, H, W, D)` uint8: the number of the part (1 for an organ of interest), `UNKNOWN` without a ground truth, 0
        elsewhere. Where masks of single values overlap, the later part counts.

    Raises:
        DataError: a file has changed since it was checked, or cannot be read any more.
    """
    result = torch.zeros((1, *image.shape[1:]), dtype=torch.uint8)
    for label in case.labels:
        if label.value is not None and label.value not in classes.foreground:
            continue
        voxels = read_label(label).values
        if voxels.shape != tuple(image.shape[1:]):
            sizes = (" x ".join(map(str, shape)) for shape in (voxels.shape, image.shape[1:]))
            what = "label {} has {} voxels and its image {}".format(label.path, *sizes)
            raise DataError(f"case {case.name}: {what}", fix="one has changed since it was checked, start again")
        if label.value is None:
            found = torch.from_numpy(np.array(voxels, np.int64))[None]
            if ignore is not None:
                result[found == ignore] = UNKNOWN
            for number, part in enumerate(classes.parts, 1):
                result[torch.isin(found, torch.as_tensor(sorted(part)))] = number
        else:
            own = next(number for number, values in enumerate(classes.parts, 1) if label.value in values)
            result[torch.from_numpy(voxels == label.value)[None]] = own
    return MetaTensor(result, affine=image.affine)
