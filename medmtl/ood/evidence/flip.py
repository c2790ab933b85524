"""Disagreement between the mask of an image and that of its mirror image: one additional pass of the network."""

from collections.abc import Callable

from torch import Tensor

AXIS = 0  # left to right, in the working space


def flip_disagreement(image: Tensor, mask: Tensor, predict: Callable[[Tensor], Tensor], axis: int = AXIS) -> float:
    """1 - Dice of the mask and the mask of the mirrored image, mirrored back.

    Training mirrors patches at random, so that a network that has learnt an organ finds it in the mirror image, too.

    Args:
        image: in the working space, `(C, h, w, d)`, axes towards right, front and head.
        mask: of it, bool `(h, w, d)`.
        predict: gives the foreground probability `(1, h, w, d)` of such an image.
        axis: to mirror along; 0, 1 or 2.

    Returns:
        0 to 1; two empty masks agree.

    Example:
        >>> import torch
        >>> image = torch.zeros(1, 4, 1, 1)
        >>> mask = torch.tensor([True, True, False, False]).view(4, 1, 1)
        >>> left = lambda image: mask[None].float()  # whatever it sees
        >>> flip_disagreement(image, mask, left)
        1.0
    """
    mirrored = predict(image.flip(1 + axis))[0].flip(axis).to(mask.device) >= 0.5
    both = int(mask.sum()) + int(mirrored.sum())
    return 1 - 2 * int((mask & mirrored).sum()) / both if both else 0.0
