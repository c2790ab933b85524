"""What arms are compared by: columns of `cases.csv`."""

from collections.abc import Mapping
from types import MappingProxyType

from medmtl.accuracy import ACCURACY
from medmtl.calibration.metrics.definitions import METRICS
from medmtl.calibration.metrics.regions import REGIONS
from medmtl.quantity import Quantity

COMPARED: Mapping[str, Quantity] = MappingProxyType(
    {
        quantity.key: quantity
        for quantity in (
            *ACCURACY.values(),
            *(METRICS[metric].over(REGIONS["band"]) for metric in ("ece", "ace", "brier", "nll")),
        )
    }
)
