"""Pool: the predictions of an ensemble's members for one volume, averaged one member after the other."""

from typing import Literal

import torch

Average = Literal["probabilities", "logits"]


class Pool:
    """Running mean of the members' predictions of one volume, held in a single volume whatever their number.

    With z_k the logits of member k of K, the pooled probability is

        probabilities:  (1 / K) sum_k sigmoid(z_k)      the mixture of Lakshminarayanan et al., arXiv 1612.01474
        logits:         sigmoid((1 / K) sum_k z_k)      the normalised geometric mean of the probabilities

    Args:
        average: what is averaged.
    """

    def __init__(self, average: Average) -> None:
        self.average = average
        self.members = 0
        self._total: torch.Tensor | None = None

    def add(self, logits: torch.Tensor) -> None:
        """Add a member's prediction.

        Args:
            logits: of foreground, any shape, the same for all members.
        """
        values = logits if self.average == "logits" else torch.sigmoid(logits)
        self._total = values if self._total is None else self._total + values
        self.members += 1

    def probability(self) -> torch.Tensor:
        """The pooled probability of foreground in [0, 1], of the shape of the logits.

        Raises:
            ValueError: no member was added.
        """
        if self._total is None:
            raise ValueError("nothing to pool: no member was added")
        mean = self._total / self.members
        return torch.sigmoid(mean) if self.average == "logits" else mean
