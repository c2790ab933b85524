"""Calibration on plain tensors: reliability bins streamed over volumes, their metrics, regions, post-hoc scaling."""

from medmtl.calibration.bins import BinTable, CalibrationBins, bin_volume, edges
from medmtl.calibration.logits import LogitHistogram, logit_histogram
from medmtl.calibration.metrics import METRICS, ace, brier, ece, mce, nll, summarise
from medmtl.calibration.regions import REGIONS, band, whole
from medmtl.calibration.scaling import METHODS, Fitted, Isotonic, Platt, Scaling, TaskScalings, Temperature

__all__ = [
    "METHODS",
    "METRICS",
    "REGIONS",
    "BinTable",
    "CalibrationBins",
    "Fitted",
    "Isotonic",
    "LogitHistogram",
    "Platt",
    "Scaling",
    "TaskScalings",
    "Temperature",
    "ace",
    "band",
    "bin_volume",
    "brier",
    "ece",
    "edges",
    "logit_histogram",
    "mce",
    "nll",
    "summarise",
    "whole",
]
