"""Calibration on plain tensors: bins streamed over volumes, their metrics and intervals, regions, post-hoc scaling."""

from medmtl.calibration.bins import BinTable, bin_classes, bin_top_label, bin_true_class, bin_volume, edges, fine_edges
from medmtl.calibration.intervals import (
    INTERVAL_METRICS,
    CaseDraws,
    FrequencyBand,
    frequency_band,
    resampled_metrics,
)
from medmtl.calibration.local import local_gap
from medmtl.calibration.local_temperature import LocalTemperature
from medmtl.calibration.logits import LogitHistogram, logit_histogram
from medmtl.calibration.maps import Isotonic, Monotone, Platt, Scaling, Temperature
from medmtl.calibration.metrics import (
    ALL_METRICS,
    METRICS,
    ace,
    adaptive_ece,
    adaptive_error,
    brier,
    ece,
    gap,
    mce,
    nll,
    reliability,
    resolution,
    rmsce,
    summarise,
    uncertainty,
    within_bins,
)
from medmtl.calibration.regions import REGIONS, Region, band, body, box, likely, shell, whole
from medmtl.calibration.scaling import KINDS, METHODS, Fitted, TaskScalings
from medmtl.calibration.streaming import CalibrationBins, CalibrationMetrics
from medmtl.calibration.vector import VectorScaling
from medmtl.calibration.working import VoxelSample, WorkingVolume, sample_voxels

__all__ = [
    "ALL_METRICS",
    "INTERVAL_METRICS",
    "KINDS",
    "METHODS",
    "METRICS",
    "REGIONS",
    "BinTable",
    "CalibrationBins",
    "CalibrationMetrics",
    "CaseDraws",
    "Fitted",
    "FrequencyBand",
    "Isotonic",
    "LocalTemperature",
    "LogitHistogram",
    "Monotone",
    "Platt",
    "Region",
    "Scaling",
    "TaskScalings",
    "Temperature",
    "VectorScaling",
    "VoxelSample",
    "WorkingVolume",
    "ace",
    "adaptive_ece",
    "adaptive_error",
    "band",
    "bin_classes",
    "bin_top_label",
    "bin_true_class",
    "bin_volume",
    "body",
    "box",
    "brier",
    "ece",
    "edges",
    "fine_edges",
    "frequency_band",
    "gap",
    "likely",
    "local_gap",
    "logit_histogram",
    "mce",
    "nll",
    "reliability",
    "resampled_metrics",
    "resolution",
    "rmsce",
    "sample_voxels",
    "shell",
    "summarise",
    "uncertainty",
    "whole",
    "within_bins",
]
