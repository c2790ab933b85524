"""A loss that is the weighted sum of others."""

from collections.abc import Sequence

from torch import Tensor, nn

from medmtl.errors import ConfigError


class WeightedSum(nn.Module):
    """Sum of losses, each times its weight.

    Args:
        losses: each takes logits and labels, both `(B, 1, H, W, D)`.
        weights: one for each loss.
    """

    def __init__(self, losses: list[nn.Module], weights: Sequence[float]) -> None:
        super().__init__()
        if not losses or len(losses) != len(weights):
            raise ConfigError(f"model.loss: {len(losses)} losses and {len(weights)} weights", fix="give each loss one")
        self.losses = nn.ModuleList(losses)
        self.weights = list(weights)

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """The sum; arguments are handed on to the losses."""
        return sum(weight * loss(logits, label) for weight, loss in zip(self.weights, self.losses, strict=True))
