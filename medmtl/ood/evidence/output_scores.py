"""OOD scores of an image from the output alone, of one network or of an ensemble.

All are scores of the foreground, also of an output with several classes: p is then the probability of all classes
together (of classes that overlap, of the most probable one), and a voxel is certain where it is clear that it is one of
them, whichever that is. Which class it is does not enter, so that tasks with any number of classes have scores on one
scale. Thus the entropy is that of foreground against background; that of all classes is larger by p times the entropy
of the classes within the foreground.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch

from medmtl.calibration.scaling.histogram import to_logits
from medmtl.ood.score import OODScore


def mean_foreground_entropy(probability: torch.Tensor) -> float:
    """Mean voxel entropy over the predicted foreground (Mehrtash et al., arXiv 1911.13273; Karimi & Gholipour).

    Args:
        probability: foreground probability of one volume, any shape, in [0, 1].

    Returns:
        -p log p - (1 - p) log(1 - p) in nats, averaged over p >= 0.5; 0 to log 2, higher = more
        out-of-distribution. An empty prediction scores 0 (as in Vasiliuk et al., arXiv 2306.13528).
    """
    foreground = probability[probability >= 0.5].double()
    if not foreground.numel():
        return 0.0
    return float(_entropy(foreground).mean())


def mean_foreground_max_softmax(probability: torch.Tensor) -> float:
    """1 - maximum class probability, averaged over the predicted foreground (Hendrycks & Gimpel, arXiv 1610.02136).

    Args:
        probability: foreground probability of one volume, any shape, in [0, 1].

    Returns:
        0 to 0.5, higher = more out-of-distribution; 0 for an empty prediction, as in `mean_foreground_entropy`.
    """
    foreground = probability[probability >= 0.5].double()
    return float((1 - foreground).mean()) if foreground.numel() else 0.0


def mean_foreground_max_logit(probability: torch.Tensor) -> float:
    """- largest logit, averaged over the predicted foreground (Hendrycks et al., arXiv 1911.11132).

    One logit z stands for the two classes (-z / 2, z / 2), up to a factor the largest is |z|.

    Args:
        probability: foreground probability of one volume, any shape, in [0, 1].

    Returns:
        - mean |z|, at most 0, higher = more out-of-distribution. An empty prediction scores 0, the maximum: every
        image of a task shows its organ.
    """
    foreground = probability[probability >= 0.5]
    return -float(to_logits(foreground).abs().mean()) if foreground.numel() else 0.0


def mean_foreground_energy(probability: torch.Tensor) -> float:
    """Energy, averaged over the predicted foreground (Liu et al., arXiv 2010.03759).

    One logit z stands for the two classes (0, z).

    Args:
        probability: foreground probability of one volume, any shape, in [0, 1].

    Returns:
        - mean log(1 + e^z), at most - log 2, higher = more out-of-distribution. An empty prediction scores
        - log 2, the maximum, as in `mean_foreground_max_logit`.
    """
    foreground = probability[probability >= 0.5]
    return -float(torch.nn.functional.softplus(to_logits(foreground)).mean()) if foreground.numel() else -math.log(2)


def mean_foreground_mutual_information(mean: torch.Tensor, mean_entropy: torch.Tensor) -> float:
    """Mutual information of label and member, mean over the predicted foreground (Depeweg et al., arXiv 1710.07283).

    H(mean of p) - mean of H(p): high where members are certain of different labels, 0 where they agree, however
    uncertain each may be. The foreground and its averaging are those of `mean_foreground_entropy`.

    Args:
        mean: mean of the members' foreground probabilities p of one volume, any shape, in [0, 1].
        mean_entropy: mean of their voxel entropies H(p) in nats, of the same shape.

    Returns:
        0 to log 2 nats, higher = more out-of-distribution; 0 for an empty prediction.
    """
    foreground = mean >= 0.5
    if not foreground.any():
        return 0.0
    information = _entropy(mean[foreground].double()) - mean_entropy[foreground].double()
    return max(0.0, float(information.mean()))  # negative only by rounding


def pairwise_dice_distance(masks: Sequence[torch.Tensor]) -> float:
    """1 - Dice of two members' segmentations, mean over all pairs (as in Zenk et al., arXiv 2406.03323).

    Args:
        masks: True for foreground, one bool volume a member, all of one shape.

    Returns:
        0 to 1, higher = more out-of-distribution; 0 for a single member. Two empty masks agree: their Dice is 1.
    """
    sizes = [int(mask.sum()) for mask in masks]
    distances = []
    for one, other in combinations(range(len(masks)), 2):
        both = sizes[one] + sizes[other]
        distances.append(1 - 2 * int((masks[one] & masks[other]).sum()) / both if both else 0.0)
    return sum(distances) / len(distances) if distances else 0.0


@dataclass(frozen=True, kw_only=True)
class OutputScore(OODScore):
    """An OOD score of the output.

    Attributes:
        of_probability: computes it from the foreground probability of one volume; None: it needs several members.
    """

    of_probability: Callable[[torch.Tensor], float] | None = None


OUTPUT_SCORES = {
    score.key: score
    for score in (
        OutputScore(
            key="entropy",
            label="Mean foreground entropy",
            unit="nats",
            meaning="mean entropy over the predicted foreground",
            role="baseline",
            reference="Mehrtash et al., arXiv 1911.13273; Karimi & Gholipour, arXiv 2004.06569",
            of_probability=mean_foreground_entropy,
        ),
        OutputScore(
            key="max_softmax",
            label="Max softmax",
            meaning="1 \N{MINUS SIGN} largest class probability, mean over the predicted foreground",
            reference="Hendrycks & Gimpel, arXiv 1610.02136",
            of_probability=mean_foreground_max_softmax,
        ),
        OutputScore(
            key="max_logit",
            label="Max logit",
            meaning="\N{MINUS SIGN} largest logit, mean over the predicted foreground",
            reference="Hendrycks et al., arXiv 1911.11132",
            of_probability=mean_foreground_max_logit,
        ),
        OutputScore(
            key="energy",
            label="Energy",
            meaning="energy, mean over the predicted foreground",
            reference="Liu et al., arXiv 2010.03759",
            of_probability=mean_foreground_energy,
        ),
        OutputScore(
            key="flip_disagreement",
            label="Flip disagreement",
            meaning="1 \N{MINUS SIGN} Dice of the mask and that of the mirrored image",
            reference="test-time augmentation; Wang et al., arXiv 1807.07356",
        ),
        OutputScore(
            key="mutual_information",
            label="Mutual information of the members",
            unit="nats",
            meaning="mutual information of label and member, mean over the predicted foreground",
            reference="Gal & Ghahramani, arXiv 1506.02142; Lakshminarayanan et al., arXiv 1612.01474",
        ),
        OutputScore(
            key="pairwise_dice_distance",
            label="Pairwise Dice of the members",
            meaning="1 \N{MINUS SIGN} Dice of two members, mean over the pairs",
            reference="Zenk et al., arXiv 2406.03323",
        ),
    )
}


class Disagreement:
    """Disagreement of the members of an ensemble on one image, added one member after the other.

    Two volumes are kept and, of every member, a mask.
    """

    def __init__(self) -> None:
        self._total: torch.Tensor | None = None
        self._entropy: torch.Tensor | None = None
        self._masks: list[torch.Tensor] = []

    def add(self, probability: torch.Tensor) -> None:
        """Add a member.

        Args:
            probability: its foreground probability, any shape, in [0, 1].
        """
        entropy = _entropy(probability)
        self._total = probability if self._total is None else self._total + probability
        self._entropy = entropy if self._entropy is None else self._entropy + entropy
        self._masks.append(probability >= 0.5)

    def scores(self) -> dict[str, float]:
        """`mutual_information` and `pairwise_dice_distance`; nothing for fewer than two members."""
        members = len(self._masks)
        if self._total is None or self._entropy is None or members < 2:
            return {}
        return {
            "mutual_information": mean_foreground_mutual_information(self._total / members, self._entropy / members),
            "pairwise_dice_distance": pairwise_dice_distance(self._masks),
        }


def _entropy(probability: torch.Tensor) -> torch.Tensor:
    """Voxel entropy -p log p - (1 - p) log(1 - p), nats."""
    return torch.special.entr(probability) + torch.special.entr(1 - probability)
