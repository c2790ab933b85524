"""Features of training images as one Gaussian per task with a common covariance, and the Mahalanobis distance."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from medmtl.errors import DataError

MAD_TO_DEVIATION = 1.4826  # of a median absolute deviation, for normal values

# The spread of a channel that hardly varies among few training images is raised to this share of the mean spread.
LEAST_SPREAD = 0.01


def principal_axes(features: Tensor, variance: float) -> tuple[Tensor, Tensor]:
    """The directions in which features vary most.

    Args:
        features: `(samples, F)`.
        variance: share of the variance that the directions keep.

    Returns:
        The directions, `(K, F)`, and the mean, `(F,)`.
    """
    from sklearn.decomposition import PCA  # only to fit: a bundle that scores does without

    with np.errstate(divide="ignore", invalid="ignore"):  # of samples that are all alike
        found = PCA(variance, svd_solver="full").fit(features.numpy())
    return torch.from_numpy(found.components_), torch.from_numpy(found.mean_)


def spread(residuals: Tensor) -> Tensor:
    """Standard deviation of each feature around 0, `(F,)` float64, held at 1 % of the mean of all.

    Args:
        residuals: features without their task's mean, `(samples, F)`.
    """
    deviation = residuals.square().mean(0).sqrt()
    return deviation.clamp_min(max(LEAST_SPREAD * float(deviation.mean()), torch.finfo(torch.float64).tiny ** 0.5))


def task_means(features: Tensor, tasks: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The mean of each task, and what is left without it.

    Args:
        features: `(samples, F)` float64.
        tasks: the task of each sample.

    Returns:
        Means `(tasks, F)`, in alphabetical order, and residuals `(samples, F)`.
    """
    names = sorted(set(tasks))
    index = torch.tensor([names.index(task) for task in tasks])
    means = torch.stack([features[index == number].mean(0) for number in range(len(names))])
    return means, features - means[index]


def fit_gaussian(features: Tensor, tasks: Sequence[str], shrink: bool = True) -> dict[str, Tensor]:
    """Fit a mean for each task and one covariance for all (Lee et al., arXiv 1807.03888, with tasks as the classes).

    Features are standardised by their spread within tasks. With one task this is the plain Gaussian.

    Args:
        features: `(samples, F)` float64.
        tasks: the task of each sample.
        shrink: estimate the covariance by shrinkage (Ledoit & Wolf), as few samples need, or as it is.

    Returns:
        `means` (tasks, F), `scale` (F,), `precision` (F, F) of the standardised features, all float64.

    Raises:
        DataError: no task has two samples.
    """
    from sklearn.covariance import EmpiricalCovariance, LedoitWolf  # only to fit

    means, residuals = task_means(features, tasks)
    if len(means) == len(features):
        raise DataError("no task has two training images, so their spread cannot be estimated", fix="add cases")
    scale = spread(residuals)
    estimator = LedoitWolf if shrink else EmpiricalCovariance
    covariance = estimator(assume_centered=True).fit((residuals / scale).numpy())
    return {"means": means, "scale": scale, "precision": torch.from_numpy(np.asarray(covariance.precision_))}


def mahalanobis(fitted: dict[str, Tensor], features: Tensor) -> Tensor:
    """Distance of samples from each task's mean, `(samples, tasks)` float64.

    Args:
        fitted: what `fit_gaussian` gave.
        features: `(samples, F)`.
    """
    apart = (features.double()[:, None] - fitted["means"]) / fitted["scale"]
    return torch.einsum("stf,fg,stg->st", apart, fitted["precision"], apart).clamp_min(0).sqrt()
