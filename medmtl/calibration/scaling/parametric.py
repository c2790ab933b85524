"""Maps from the network's probability of foreground to a better calibrated one, and those that are monotone.

The monotone ones are fitted to least negative log-likelihood (NLL) on validation cases, from a `LogitHistogram`.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression
from torch import Tensor

from medmtl.calibration.metrics.bins import NLL_FLOOR
from medmtl.calibration.pieces import PIECE
from medmtl.calibration.scaling.histogram import LogitHistogram, to_logits
from medmtl.calibration.scaling.working_volume import WorkingVolume
from medmtl.errors import DataError

# Temperatures beyond say that the fit ran away, as it does where voxels can be separated or logits mean nothing.
MINIMUM_TEMPERATURE, MAXIMUM_TEMPERATURE = 1 / 20, 20.0

Floats = NDArray[np.float64]


class Scaling(ABC):
    """A map of probabilities, with parameters that are numbers or tensors."""

    method: ClassVar[str]

    @abstractmethod
    def __call__(self, probability: Tensor, working: WorkingVolume | None = None) -> Tensor:
        """Scale a volume, piece by piece.

        Args:
            probability: probability of foreground in [0, 1]; of any shape, but that of the image's own grid,
                `(H, W, D)`, for a map that needs `working`.
            working: what the network saw and said of the volume; only a map that follows the image needs it.

        Returns:
            The calibrated one, of the same shape and type, on the CPU.

        Raises:
            DataError: `working` is needed and not given.
        """

    @abstractmethod
    def __str__(self) -> str: ...

    def state_dict(self) -> dict[str, Any]:
        """Method and parameters, as text, numbers and tensors."""
        return {"method": self.method, **{field.name: getattr(self, field.name) for field in fields(self)}}  # type: ignore[arg-type]


class Monotone(Scaling):
    """A monotone map of the probability alone."""

    @classmethod
    @abstractmethod
    def fit(cls, histogram: LogitHistogram) -> Self:
        """Fit to least NLL.

        Raises:
            DataError: there is nothing to fit, or the fit does not converge within its bounds.
        """

    @abstractmethod
    def of_logits(self, logits: Tensor) -> Tensor:
        """Calibrated probability of logits, any shape, float64 on the CPU."""

    @torch.no_grad()
    def __call__(self, probability: Tensor, working: WorkingVolume | None = None) -> Tensor:
        """See `Scaling.__call__`."""
        parts = probability.as_subclass(Tensor).reshape(-1).split(PIECE)
        scaled = [self.of_logits(to_logits(part.cpu())).to(probability.dtype) for part in parts]
        return torch.cat(scaled).view(probability.shape)

    def nll(self, histogram: LogitHistogram) -> float:
        """Mean NLL in nats of a histogram's voxels after scaling; NaN without voxels."""
        logits, label, count = histogram.points()
        probability = self.of_logits(logits)
        likelihood = torch.where(label > 0, probability, 1 - probability).clamp(min=NLL_FLOOR)
        return float(-(count * likelihood.log()).sum() / count.sum())


@dataclass(frozen=True)
class Temperature(Monotone):
    """p = sigmoid(z / T) of the logit z (Guo et al., ICML 2017); which voxels are above one half does not change.

    The NLL is convex in 1 / T. Its slope is zero at the T that is sought, between 1/20 and 20.

    Args:
        temperature: T; above 1 the network was too sure. 1 returns the probabilities as they are.
    """

    method: ClassVar[str] = "temperature"
    temperature: float = 1.0

    @classmethod
    def fit(cls, histogram: LogitHistogram) -> "Temperature":
        """The temperature of least NLL, see `Monotone.fit`."""
        return cls.of_voxels(*_voxels(histogram))

    @classmethod
    def of_voxels(cls, logits: Floats, label: Floats, weight: Floats) -> "Temperature":
        """The temperature of least weighted NLL.

        Args:
            logits: of the voxels, `(voxels,)`.
            label: 0 or 1, `(voxels,)`.
            weight: how much each counts, `(voxels,)`, with sum 1.

        Raises:
            DataError: the fit does not converge within its bounds.
        """

        def slope(log_temperature: float) -> float:
            """Derivative of the NLL by 1 / T, falling in log T."""
            return float(weight @ ((expit(logits * math.exp(-log_temperature)) - label) * logits))

        minimum, maximum = math.log(MINIMUM_TEMPERATURE), math.log(MAXIMUM_TEMPERATURE)
        _check_temperature(
            MINIMUM_TEMPERATURE if slope(minimum) <= 0 else MAXIMUM_TEMPERATURE if slope(maximum) >= 0 else 1.0
        )
        log_temperature, found = brentq(slope, minimum, maximum, xtol=1e-12, full_output=True, disp=False)
        if not found.converged:
            raise DataError(f"the temperature did not converge ({found.flag})")
        return cls(math.exp(log_temperature))

    def of_logits(self, logits: Tensor) -> Tensor:
        """See `Monotone.of_logits`."""
        return torch.sigmoid(logits / self.temperature)

    def __call__(self, probability: Tensor, working: WorkingVolume | None = None) -> Tensor:
        """See `Scaling.__call__`."""
        return probability if self.temperature == 1 else super().__call__(probability, working)

    def __str__(self) -> str:
        return f"T = {self.temperature:.2f}"


@dataclass(frozen=True)
class Platt(Monotone):
    """p = sigmoid(a z + b) of the logit z (Platt 1999, without his smoothing of the labels).

    Args:
        slope: a, 1/20 to 20.
        offset: b; the foreground is rarer than the network says where it is negative.
    """

    method: ClassVar[str] = "platt"
    slope: float
    offset: float

    @classmethod
    def fit(cls, histogram: LogitHistogram) -> "Platt":
        """Slope and offset of least NLL, which is convex in both, see `Monotone.fit`."""
        logits, label, count = _voxels(histogram)
        inputs = np.stack([logits, np.ones_like(logits)])

        def loss(parameters: Floats) -> tuple[float, Floats]:
            scaled = parameters @ inputs
            return float(count @ (np.logaddexp(0, scaled) - label * scaled)), inputs @ (count * (expit(scaled) - label))

        def curvature(parameters: Floats) -> Floats:
            p = expit(parameters @ inputs)
            return (inputs * (count * p * (1 - p))) @ inputs.T

        found = minimize(
            loss, np.array([1.0, 0.0]), jac=True, hess=curvature, method="trust-exact", options={"gtol": 1e-7}
        )
        slope, offset = map(float, found.x)
        _check_temperature(1 / slope if slope > 0 else MAXIMUM_TEMPERATURE)
        if not found.success:
            raise DataError(f"slope and offset did not converge ({found.message})")
        return cls(slope, offset)

    def of_logits(self, logits: Tensor) -> Tensor:
        """See `Monotone.of_logits`."""
        return torch.sigmoid(self.slope * logits + self.offset)

    def __str__(self) -> str:
        return f"a = {self.slope:.2f}, b = {self.offset:.2f}"


@dataclass(frozen=True, eq=False)
class Isotonic(Monotone):
    """The monotone function of least squared error, on bins of logits weighted by their voxels.

    It is also the one of least NLL (Robertson, Wright & Dykstra 1988; for calibration Zadrozny & Elkan, KDD 2002).
    Between its points it is linear in the logit, beyond them constant. Fitted on n voxels it makes none more certain
    than 1 / (n + 2), Laplace's rule of succession.

    Args:
        logits: where the function is given, `(points,)` float64, rising.
        probabilities: its values there, `(points,)` float64 in (0, 1), not falling.
    """

    method: ClassVar[str] = "isotonic"
    logits: Tensor
    probabilities: Tensor

    @classmethod
    def fit(cls, histogram: LogitHistogram) -> "Isotonic":
        """The isotonic regression of label on logit, see `Monotone.fit`."""
        histogram.require_both_labels()
        count = histogram.count.sum(0)
        filled = count > 0
        logits = (histogram.total.sum(0) / count)[filled].numpy()
        share = (histogram.count[1] / count)[filled].double().numpy()
        least = 1 / (histogram.voxels + 2)
        regression = IsotonicRegression(y_min=least, y_max=1 - least)
        regression.fit(logits, share, sample_weight=count[filled].double().numpy())
        return cls(torch.from_numpy(regression.X_thresholds_), torch.from_numpy(regression.y_thresholds_))

    def of_logits(self, logits: Tensor) -> Tensor:
        """See `Monotone.of_logits`."""
        return torch.from_numpy(np.interp(logits.numpy(), self.logits.numpy(), self.probabilities.numpy()))

    def __str__(self) -> str:
        return f"isotonic, {len(self.probabilities)} points"


def _voxels(histogram: LogitHistogram) -> tuple[Floats, Floats, Floats]:
    """Logits, labels and shares of all voxels, as arrays."""
    histogram.require_both_labels()
    logits, label, count = histogram.points()
    return logits.numpy(), label.numpy(), (count / count.sum()).numpy()


def _check_temperature(temperature: float) -> None:
    if temperature <= MINIMUM_TEMPERATURE:
        raise DataError(
            f"the best temperature is not above {MINIMUM_TEMPERATURE:g}, as where the logits separate the labels"
        )
    if temperature >= MAXIMUM_TEMPERATURE:
        raise DataError(
            f"the best temperature is not below {MAXIMUM_TEMPERATURE:g}, as where the logits say nothing of the labels"
        )
