"""Weighted sum of losses."""

from collections.abc import Sequence

from torch import Tensor, nn

from medmtl.errors import ConfigError


class WeightedSum(nn.Module):
    """Sum of losses, each times its weight.

    Args:
        losses: each takes logits and labels, both `(B, 1, H, W, D)`.
        weights: one for each loss.

    Example:
        >>> loss = WeightedSum([torch.nn.BCEWithLogitsLoss(), ML1ACE()], weights=[1.0, 0.3])
        >>> logits = torch.zeros(1, 1, 2, 2, 2)
        >>> label = torch.ones(1, 1, 2, 2, 2)
        >>> round(loss(logits, label).item(), 4)  # log 2 + 0.3 / 2
        0.8431
    """

    def __init__(self, losses: list[nn.Module], weights: Sequence[float]) -> None:
        super().__init__()
        if not losses or len(losses) != len(weights):
            raise ConfigError(f"model.loss: {len(losses)} losses and {len(weights)} weights", fix="give each loss one")
        self.losses = nn.ModuleList(losses)
        self.weights = list(weights)

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """The weighted sum; arguments as for the losses."""
        return sum(weight * loss(logits, label) for weight, loss in zip(self.weights, self.losses, strict=True))
