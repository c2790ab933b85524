"""Reading of a case: the image by the rules of `medmtl predict`, and its label on the image's grid."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor

from medmtl.data.case import Case
from medmtl.errors import DataError
from medmtl.io.input import Input, kind_of
from medmtl.io.reader import Stack, read_stack
from medmtl.io.volume import read_volume
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


def load_organ(case: Case, organ: Collection[int], image: MetaTensor, ignore: int | None = None) -> MetaTensor:
    """Load the labels of a case as the organ of interest against everything else.

    Args:
        case: the case.
        organ: label values of the organ of interest.
        image: the case's image on its own grid; the label takes over its affine, so that rounding in their headers,
            which the checks before training allow, cannot tell them apart.
        ignore: label value of voxels without a ground truth.

    Returns:
        `(1, H, W, D)` uint8: 1 in the organ, `UNKNOWN` without a ground truth, 0 elsewhere.
    """
    values = torch.as_tensor(sorted(organ))
    result = torch.zeros((1, *image.shape[1:]), dtype=torch.uint8)
    for label in case.labels:
        if label.value is not None and label.value not in organ:
            continue
        voxels = read_volume(label.path).voxels
        if label.value is None:
            found = torch.from_numpy(np.array(voxels, np.int64))[None]
            if ignore is not None:
                result[found == ignore] = UNKNOWN
            result[torch.isin(found, values)] = 1
        else:
            result[torch.from_numpy(voxels > 0)[None]] = 1
    return MetaTensor(result, affine=image.affine)
