"""Mean and deviation over cases, some of which have no value."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


def mean_of(values: Iterable[float | None]) -> float | None:
    """Mean of the finite values; None without any."""
    numbers = [value for value in values if value is not None and math.isfinite(value)]
    return float(np.mean(numbers)) if numbers else None


def spread_of(values: Sequence[float | None]) -> dict[str, Any]:
    """Mean and deviation over the cases that have a number, and how many have none though they have a label.

    Args:
        values: one a case; None without a label, NaN for a label without foreground.
    """
    defined = [value for value in values if value is not None and math.isfinite(value)]
    return {
        "mean": mean_of(defined),
        "std": float(np.std(defined, ddof=1)) if len(defined) > 1 else None,
        "undefined": sum(value is not None for value in values) - len(defined),
    }
