"""Neighbour-aware calibration loss for one foreground logit (Murugesan et al., MICCAI 2023), based on MONAI's."""

from typing import Literal

import torch
from monai.losses import NACLLoss
from torch import Tensor, nn

from medmtl.errors import ConfigError
from medmtl.losses.labels import targets


class NACL(nn.Module):
    """Cross-entropy plus the distance of the logits from the share of each class among a voxel's neighbours.

    MONAI's `NACLLoss` (arXiv 2303.06268, 2401.14487) of the two logits (-z / 2, z / 2), whose softmax is the sigmoid
    of z. Of all pairs with that softmax it is symmetric in foreground and background; (0, z) would pull the background
    to a probability of one half. The neighbourhood is zero-padded at the border of a patch.

    Args:
        kernel_size: side of the neighbourhood in voxels.
        distance_type: l1, the mean absolute distance, or l2, the mean squared one.
        alpha: weight of the distance.
    """

    def __init__(self, kernel_size: int = 3, distance_type: Literal["l1", "l2"] = "l1", alpha: float = 0.1) -> None:
        super().__init__()
        self.loss = NACLLoss(2, dim=3, kernel_size=kernel_size, distance_type=distance_type, alpha=alpha)

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Loss of a batch of patches.

        Args:
            logits: of foreground, `(B, 1, H, W, D)`.
            label: 0 and 1, `(B, 1, H, W, D)`, any type.

        Returns:
            A number, float32 also for half-precision logits.

        Raises:
            ConfigError: the network has several channels.
            DataError: shapes differ, or a label is neither 0 nor 1.
        """
        if logits.shape[1] != 1:
            raise ConfigError(
                f"model.loss: NACL takes one channel of logits, not {logits.shape[1]}", fix="use monai.losses.NACLLoss"
            )
        half = logits.to(torch.promote_types(logits.dtype, torch.float32)) / 2
        pair = torch.cat([-half, half], 1)
        return self.loss(pair, targets(pair, label)[:, 1].long())
