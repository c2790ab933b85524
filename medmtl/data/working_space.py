"""The working space of a preprocessing: an image is brought there, and what is found there back to its own grid."""

from collections.abc import Iterable

import torch
from monai.data import MetaTensor
from monai.transforms import ClipIntensityPercentiles, Orientation, ScaleIntensityRange

from medmtl.data.preprocessing import Preprocessing
from medmtl.data.resample import to_grid, to_spacing

PERCENTILES = (0.5, 99.5)


def prepare(image: MetaTensor, preprocessing: Preprocessing) -> MetaTensor:
    """Bring an image into a preprocessing's working space.

    Args:
        image: `(C, H, W, D)` on its own grid.
        preprocessing: spacing and intensity.

    Returns:
        `(C, h, w, d)` float32, right-anterior-superior, at the preprocessing's spacing. CT is clipped to the window and
        scaled to [-1, 1]; of everything else each channel is clipped to percentiles 0.5 and 99.5 and z-scored (a
        constant one becomes 0).
    """
    image = to_spacing(Orientation("RAS", labels=None)(image), preprocessing.spacing)
    if preprocessing.window is not None:
        return ScaleIntensityRange(*preprocessing.window, b_min=-1.0, b_max=1.0, clip=True)(image)
    return torch.cat([_z_score(channel) for channel in image.split(1)])


def prepare_each(image: MetaTensor, preprocessings: Iterable[Preprocessing]) -> dict[Preprocessing, MetaTensor]:
    """An image under several preprocessings; those that differ in their head alone share a volume."""
    wanted = list(preprocessings)
    prepared = {each: prepare(image, each) for each in dict.fromkeys(each.image for each in wanted)}
    return {each: prepared[each.image] for each in wanted}


def _z_score(channel: MetaTensor) -> MetaTensor:
    channel = ClipIntensityPercentiles(*PERCENTILES)(channel)
    if channel.max() == channel.min():
        return torch.zeros_like(channel)
    return (channel - channel.mean()) / channel.std()


def to_native(probability: MetaTensor, like: MetaTensor) -> torch.Tensor:
    """Bring a probability map back onto an image's own grid.

    Args:
        probability: `(1, h, w, d)` in a preprocessing's working space.
        like: a volume `(1, H, W, D)` on the grid to return to.

    Returns:
        `(H, W, D)` float32 in [0, 1], linearly interpolated.
    """
    return to_grid(probability, like.affine, like.shape[1:])[0].as_tensor().clamp_(0, 1)
