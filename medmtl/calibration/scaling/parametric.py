"""Post-hoc scaling of foreground probability: the interface, and temperature, Platt and isotonic scaling.

These monotone maps minimise the negative log-likelihood (NLL) of validation cases, from a `LogitHistogram`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize
from scipy.special import expit
from torch import Tensor

from medmtl.calibration.pieces import PIECE
from medmtl.calibration.scaling.histogram import LogitHistogram, to_logits
from medmtl.calibration.scaling.working_volume import WorkingVolume
from medmtl.errors import DataError

# A fit beyond these has diverged, as for logits that separate the labels or are uninformative.
MINIMUM_TEMPERATURE, MAXIMUM_TEMPERATURE = 1 / 20, 20.0

Floats = NDArray[np.float64]


class Scaling(ABC):
    """A map of probabilities, with numbers or tensors as parameters."""

    method: ClassVar[str]

    @abstractmethod
    def __call__(
        self, probability: Tensor, working: WorkingVolume | None = None, spacing_mm: Sequence[float] | None = None
    ) -> Tensor:
        """Scale a volume, piece by piece.

        Args:
            probability: probability of foreground in [0, 1]; of any shape, but that of the image's own grid,
                `(H, W, D)`, for a map that needs `working`.
            working: image and probability in the working space; needed only by a map that depends on the image.
            spacing_mm: distance between voxels along each axis, mm; needed only by a map that depends on distances.

        Returns:
            Calibrated probability, of the same shape and type, on the CPU.

        Raises:
            DataError: `working` or `spacing_mm` is needed and not given.
        """

    def within(self, region: Tensor, probability: Tensor, working: WorkingVolume | None = None) -> Tensor:
        """Calibrated probability of the voxels of a region, in their order in the volume.

        Args:
            region: bool, of the shape of the probability.
            probability: of a volume, as for a call.
            working: as for a call.

        Returns:
            `(voxels,)`, of the type of the probability, on the CPU.
        """
        return self(probability[region], working)

    @abstractmethod
    def __str__(self) -> str: ...

    def parameters(self) -> dict[str, Any]:
        """The parameters that are single numbers, by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, float)}

    def state_dict(self) -> dict[str, Any]:
        """Method and parameters: text, numbers and tensors."""
        return {"method": self.method, **{field.name: getattr(self, field.name) for field in fields(self)}}  # type: ignore[arg-type]


class Monotone(Scaling):
    """A monotone map of the probability alone."""

    @classmethod
    @abstractmethod
    def fit(cls, histogram: LogitHistogram) -> Self:
        """Fit by minimum NLL.

        Raises:
            DataError: a label has no voxels, or the fit does not converge within its bounds.
        """

    @abstractmethod
    def of_logits(self, logits: Tensor) -> Tensor:
        """Calibrated probability of logits, any shape, float64 on the CPU."""

    @torch.no_grad()
    def __call__(
        self, probability: Tensor, working: WorkingVolume | None = None, spacing_mm: Sequence[float] | None = None
    ) -> Tensor:
        """See `Scaling.__call__`."""
        parts = probability.as_subclass(Tensor).reshape(-1).split(PIECE)
        scaled = [self.of_logits(to_logits(part.cpu())).to(probability.dtype) for part in parts]
        return torch.cat(scaled).view(probability.shape)


@dataclass(frozen=True)
class Temperature(Monotone):
    """p = sigmoid(z / T) of the logit z (Guo et al., ICML 2017); the segmentation at 0.5 does not change.

    The NLL is convex in 1 / T; T is the root of its derivative between 1/20 and 20.

    Args:
        temperature: T; above 1 for an over-confident network. 1 returns the probabilities unchanged.

    Example:
        >>> Temperature(2.0)(torch.tensor([0.5, 0.9])).tolist()  # logits 0 and log 9, halved
        [0.5, 0.75]
        >>> sure = torch.tensor([0.99, 0.99, 0.99, 0.01])  # of which three in four are right
        >>> print(Temperature.fit(logit_histogram(sure, torch.tensor([1, 1, 0, 0]))))
        T = 4.18
    """

    method: ClassVar[str] = "temperature"
    temperature: float = 1.0

    @classmethod
    def fit(cls, histogram: LogitHistogram) -> "Temperature":
        """The temperature of minimum NLL, see `Monotone.fit`."""
        return cls.of_voxels(*_voxels(histogram))

    @classmethod
    def of_voxels(cls, logits: Floats, label: Floats, weight: Floats) -> "Temperature":
        """The temperature of minimum weighted NLL.

        Args:
            logits: of the voxels, `(voxels,)`.
            label: 0 or 1, `(voxels,)`.
            weight: of each voxel, `(voxels,)`, with sum 1.

        Raises:
            DataError: the fit does not converge within its bounds.
        """

        def slope(log_temperature: float) -> float:
            """Derivative of the NLL with respect to 1 / T, decreasing in log T."""
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

    def __call__(
        self, probability: Tensor, working: WorkingVolume | None = None, spacing_mm: Sequence[float] | None = None
    ) -> Tensor:
        """See `Scaling.__call__`."""
        return probability if self.temperature == 1 else super().__call__(probability, working)

    def __str__(self) -> str:
        return f"T = {self.temperature:.2f}"


@dataclass(frozen=True)
class Platt(Monotone):
    """p = sigmoid(a z + b) of the logit z (Platt 1999, without his smoothing of the labels).

    Args:
        slope: a, 1/20 to 20.
        offset: b; negative where the network over-estimates foreground.
    """

    method: ClassVar[str] = "platt"
    slope: float
    offset: float

    @classmethod
    def fit(cls, histogram: LogitHistogram) -> "Platt":
        """Slope and offset of minimum NLL, which is convex in both, see `Monotone.fit`."""
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
    """Isotonic regression: the monotone function of least squared error, on bins of logits weighted by their voxels.

    It also minimises the NLL (Robertson, Wright & Dykstra 1988; for calibration Zadrozny & Elkan, KDD 2002). Between
    its points it is linear in the logit, beyond them constant. Fitted on n voxels its values lie between 1 / (n + 2)
    and 1 less that, Laplace's rule of succession.

    Args:
        logits: of the points, `(points,)` float64, increasing.
        probabilities: at the points, `(points,)` float64 in (0, 1), non-decreasing.
    """

    method: ClassVar[str] = "isotonic"
    logits: Tensor
    probabilities: Tensor

    @classmethod
    def fit(cls, histogram: LogitHistogram) -> "Isotonic":
        """The isotonic regression of label on logit, see `Monotone.fit`."""
        from sklearn.isotonic import IsotonicRegression  # only to fit: a bundle that scales does without

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
            f"the best temperature is not above {MINIMUM_TEMPERATURE:g}, as for logits that separate the labels"
        )
    if temperature >= MAXIMUM_TEMPERATURE:
        raise DataError(
            f"the best temperature is not below {MAXIMUM_TEMPERATURE:g}, as for logits that are uninformative"
        )
