"""Vector scaling of several classes' logits: a weight and an offset for each class."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax
from torch import Tensor

from medmtl.calibration.scaling.parametric import MAXIMUM_TEMPERATURE, Floats
from medmtl.errors import DataError


@dataclass(frozen=True, eq=False)
class VectorScaling:
    """p = softmax(w z + b) of the logits z of C classes, class by class (Guo et al., ICML 2017, section 4.2).

    For two classes with the logits (0, z) it equals `Platt` of z, with a = w_1 and b = b_1 - b_0. Of a task with
    several classes it scales the shares of these in the foreground, see `FittedShares`.

    Args:
        weight: w, `(C,)` float64.
        offset: b, `(C,)` float64, with sum 0, since the softmax is invariant to a common constant.
    """

    weight: Tensor
    offset: Tensor

    @classmethod
    def fit(cls, logits: Tensor, label: Tensor, count: Tensor | None = None) -> "VectorScaling":
        """Weights and offsets of minimum NLL, which is convex in both.

        Args:
            logits: of the voxels of a region, `(voxels, C)`; converted to float64.
            label: their classes, 0 to C - 1, `(voxels,)` int64.
            count: how many voxels each stands for, above 0, `(voxels,)`; None for itself alone.

        Raises:
            DataError: shapes do not fit, a class has no voxel, or the fit does not converge to weights of -20 to 20.
        """
        if logits.ndim != 2 or label.shape != logits.shape[:1]:
            shapes = f"{tuple(logits.shape)} and {tuple(label.shape)}"
            raise DataError(f"logits and label have the shapes {shapes}", fix="pass (voxels, classes) and (voxels,)")
        classes = logits.shape[1]
        if len(label) and not 0 <= label.min() <= label.max() < classes:
            raise DataError(f"a label is not a class of 0 to {classes - 1}", fix="leave its voxels out by the region")
        present = torch.bincount(label, minlength=classes)
        if not present.all():
            raise DataError(f"the region holds no voxel of class {int((present == 0).nonzero()[0])}")
        inputs, truth = logits.double().cpu().numpy(), label.cpu().numpy()
        share = np.ones(len(truth)) if count is None else count.double().cpu().numpy()
        share = share / share.sum()
        one_hot = np.eye(classes)[truth]

        def scaled(parameters: Floats) -> Floats:
            weight, offset = parameters.reshape(2, classes)
            return log_softmax(weight * inputs + offset, axis=1)

        def loss(parameters: Floats) -> tuple[float, Floats]:
            log_p = scaled(parameters)
            error = (np.exp(log_p) - one_hot) * share[:, None]
            return -float(share @ log_p[one_hot == 1]), np.concatenate([(error * inputs).sum(0), error.sum(0)])

        def curvature(parameters: Floats) -> Floats:
            p = np.exp(scaled(parameters))
            both = np.concatenate([p * inputs, p], axis=1)
            by_weight, p = p * inputs * share[:, None], p * share[:, None]
            diagonal = np.block(
                [
                    [np.diag((by_weight * inputs).sum(0)), np.diag(by_weight.sum(0))],
                    [np.diag(by_weight.sum(0)), np.diag(p.sum(0))],
                ]
            )
            return diagonal - (both * share[:, None]).T @ both

        start = np.concatenate([np.ones(classes), np.zeros(classes)])
        found = minimize(loss, start, jac=True, hess=curvature, method="trust-exact", options={"gtol": 1e-7})
        weight, offset = found.x.reshape(2, classes)
        if np.abs(weight).max() >= MAXIMUM_TEMPERATURE:
            raise DataError(
                f"the best weights are not below {MAXIMUM_TEMPERATURE:g}, as for logits that separate the classes"
            )
        if not found.success:
            raise DataError(f"weights and offsets did not converge ({found.message})")
        return cls(torch.from_numpy(weight), torch.from_numpy(offset - offset.mean()))

    def of_class(self, number: int, logit: Tensor) -> Tensor:
        """W z + b of one class, for volumes that are not held all at once.

        Args:
            number: of the class, from 0.
            logit: its logits, any shape.
        """
        return logit * float(self.weight[number]) + float(self.offset[number])

    @torch.no_grad()
    def __call__(self, logits: Tensor) -> Tensor:
        """Calibrated probabilities.

        Args:
            logits: `(B, C, H, W, D)`, or `(B, C, ...)` with any number of axes.

        Returns:
            Of the same shape, type and device, in [0, 1], with sum 1 over the classes.
        """
        shape = (-1, *[1] * (logits.ndim - 2))
        weight, offset = (values.to(logits).view(shape) for values in (self.weight, self.offset))
        return torch.softmax(weight * logits + offset, dim=1)

    def state_dict(self) -> dict[str, Any]:
        """Weights and offsets, as tensors; `VectorScaling(**state)` restores them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}
