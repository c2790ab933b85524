"""Pool: the predictions of an ensemble's members for one volume, averaged one member after the other."""

from typing import Literal

import torch

Average = Literal["probabilities", "logits"]


class Pool:
    """Running mean of the members' predictions of one volume, held in a single volume whatever their number.

    With z_k the logits of member k of K, the pooled probability is

        probabilities:  (1 / K) sum_k sigmoid(z_k)      the mixture of Lakshminarayanan et al., arXiv 1612.01474
        logits:         sigmoid((1 / K) sum_k z_k)      the normalised geometric mean of the probabilities

    and the same with a softmax for the channels of a head with a background.

    Args:
        average: what is averaged.
        softmax: whether the channels are those of a softmax, instead of a sigmoid each.
    """

    def __init__(self, average: Average, softmax: bool = False) -> None:
        self.average = average
        self.softmax = softmax
        self.members = 0
        self._total: torch.Tensor | None = None
        self._first: torch.Tensor | None = None  # of a single member

    def add(self, logits: torch.Tensor) -> None:
        """Add a member's prediction.

        Args:
            logits: any shape, the same for all members; with a softmax over the first axis.
        """
        values = logits if self.average == "logits" else self._probability(logits)
        self._first = logits if self.members == 0 else None
        self._total = values if self._total is None else self._total + values
        self.members += 1

    def probability(self) -> torch.Tensor:
        """The pooled probability in [0, 1], of the shape of the logits.

        Raises:
            ValueError: no member was added.
        """
        if self._total is None:
            raise ValueError("nothing to pool: no member was added")
        mean = self._total / self.members
        return self._probability(mean) if self.average == "logits" else mean

    def logits(self) -> torch.Tensor:
        """Logits of the pooled probability, of the shape of the members'; those of a member that is alone.

        Raises:
            ValueError: no member was added.
        """
        if self._first is not None:
            return self._first
        probability = self.probability()
        if self.softmax:  # without a logarithm of 0
            return probability.clamp(min=torch.finfo(probability.dtype).tiny).log()
        return torch.logit(probability)

    def _probability(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.softmax(logits.float(), 0) if self.softmax else torch.sigmoid(logits)
