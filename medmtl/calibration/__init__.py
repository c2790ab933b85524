"""Calibration on plain tensors: bins streamed over volumes, their metrics and intervals, regions, post-hoc scaling."""

from medmtl.bootstrap import CaseDraws
from medmtl.calibration.metrics.bins import (
    BinTable,
    bin_classes,
    bin_top_label,
    bin_true_class,
    bin_volume,
    edges,
    fine_edges,
)
from medmtl.calibration.metrics.contract import check_metric
from medmtl.calibration.metrics.definitions import (
    ALL_METRICS,
    METRICS,
    BinMetric,
    ace,
    adaptive_ece,
    adaptive_error,
    brier,
    ece,
    gap,
    mce,
    metrics_with,
    nll,
    reliability,
    resolution,
    rmsce,
    summarise,
    uncertainty,
    volume_ratio,
    within_bins,
)
from medmtl.calibration.metrics.gap_map import local_gap
from medmtl.calibration.metrics.intervals import (
    INTERVAL_METRICS,
    FrequencyBand,
    frequency_band,
    resampled_metrics,
)
from medmtl.calibration.metrics.regions import REGIONS, Region, band, body, box, likely, shell, whole
from medmtl.calibration.metrics.streaming import CalibrationBins, CalibrationMetrics
from medmtl.calibration.scaling.histogram import LogitHistogram, logit_histogram
from medmtl.calibration.scaling.local_temperature import LocalTemperature
from medmtl.calibration.scaling.parametric import Isotonic, Monotone, Platt, Scaling, Temperature
from medmtl.calibration.scaling.per_task import KINDS, METHODS, Fitted, TaskScalings
from medmtl.calibration.scaling.vector import VectorScaling
from medmtl.calibration.scaling.working_volume import VoxelSample, WorkingVolume, sample_voxels
from medmtl.calibration.scaling.zones import ZONES, ByZone, ZoneHistograms, zone_masks

__all__ = [
    "ALL_METRICS",
    "INTERVAL_METRICS",
    "KINDS",
    "METHODS",
    "METRICS",
    "REGIONS",
    "ZONES",
    "BinMetric",
    "BinTable",
    "ByZone",
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
    "ZoneHistograms",
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
    "check_metric",
    "ece",
    "edges",
    "fine_edges",
    "frequency_band",
    "gap",
    "likely",
    "local_gap",
    "logit_histogram",
    "mce",
    "metrics_with",
    "nll",
    "reliability",
    "resampled_metrics",
    "resolution",
    "rmsce",
    "sample_voxels",
    "shell",
    "summarise",
    "uncertainty",
    "volume_ratio",
    "whole",
    "within_bins",
    "zone_masks",
]
