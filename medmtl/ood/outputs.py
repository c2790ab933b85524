"""Scores of an image from the network's output alone: the rivals of the signature."""

import math

import torch

from medmtl.calibration.logits import to_logits


def mean_foreground_entropy(probability: torch.Tensor) -> float:
    """Mean voxel entropy over the predicted foreground (Mehrtash et al., arXiv 1911.13273; Karimi & Gholipour).

    Args:
        probability: foreground probability of one volume, any shape, in [0, 1].

    Returns:
        -p log p - (1 - p) log(1 - p) in nats, averaged over p >= 0.5; 0 to log 2, higher = more foreign. An empty
        prediction scores 0 (as in Vasiliuk et al., arXiv 2306.13528).
    """
    foreground = probability[probability >= 0.5].double()
    if not foreground.numel():
        return 0.0
    entropy = torch.special.entr(foreground) + torch.special.entr(1 - foreground)
    return float(entropy.mean())


def mean_foreground_max_softmax(probability: torch.Tensor) -> float:
    """1 - maximum class probability, averaged over the predicted foreground (Hendrycks & Gimpel, arXiv 1610.02136).

    Args:
        probability: foreground probability of one volume, any shape, in [0, 1].

    Returns:
        0 to 0.5, higher = more foreign; 0 for an empty prediction, as in `mean_foreground_entropy`.
    """
    foreground = probability[probability >= 0.5].double()
    return float((1 - foreground).mean()) if foreground.numel() else 0.0


def mean_foreground_max_logit(probability: torch.Tensor) -> float:
    """- largest logit, averaged over the predicted foreground (Hendrycks et al., arXiv 1911.11132).

    One logit z stands for the two classes (-z / 2, z / 2), up to a factor the largest is |z|.

    Args:
        probability: foreground probability of one volume, any shape, in [0, 1].

    Returns:
        - mean |z|, at most 0, higher = more foreign. An empty prediction scores 0, the most: every image of a task
        shows its organ.
    """
    foreground = probability[probability >= 0.5]
    return -float(to_logits(foreground).abs().mean()) if foreground.numel() else 0.0


def mean_foreground_energy(probability: torch.Tensor) -> float:
    """Energy, averaged over the predicted foreground (Liu et al., arXiv 2010.03759).

    One logit z stands for the two classes (0, z).

    Args:
        probability: foreground probability of one volume, any shape, in [0, 1].

    Returns:
        - mean log(1 + e^z), at most - log 2, higher = more foreign. An empty prediction scores - log 2, the most, as
        in `mean_foreground_max_logit`.
    """
    foreground = probability[probability >= 0.5]
    return -float(torch.nn.functional.softplus(to_logits(foreground)).mean()) if foreground.numel() else -math.log(2)
