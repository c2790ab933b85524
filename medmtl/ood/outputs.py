"""Scores of an image from the network's output alone: the rivals of the signature."""

import torch


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
