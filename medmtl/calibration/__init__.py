"""Calibration on plain tensors: reliability bins streamed over volumes, their metrics, regions, post-hoc scaling."""

from medmtl.calibration.bins import BinTable, bin_classes, bin_top_label, bin_true_class, bin_volume, edges, fine_edges
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
    "KINDS",
    "METHODS",
    "METRICS",
    "REGIONS",
    "BinTable",
    "CalibrationBins",
    "CalibrationMetrics",
    "Fitted",
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
    "gap",
    "likely",
    "logit_histogram",
    "mce",
    "nll",
    "reliability",
    "resolution",
    "rmsce",
    "sample_voxels",
    "shell",
    "summarise",
    "uncertainty",
    "whole",
    "within_bins",
]
