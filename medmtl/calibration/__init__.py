"""Calibration on plain tensors: reliability bins streamed over volumes, the metrics that follow from them, regions."""

from medmtl.calibration.bins import BinTable, CalibrationBins, bin_volume, edges
from medmtl.calibration.metrics import METRICS, ace, brier, ece, mce, nll, summarise
from medmtl.calibration.regions import REGIONS, band, whole

__all__ = [
    "METRICS",
    "REGIONS",
    "BinTable",
    "CalibrationBins",
    "ace",
    "band",
    "bin_volume",
    "brier",
    "ece",
    "edges",
    "mce",
    "nll",
    "summarise",
    "whole",
]
