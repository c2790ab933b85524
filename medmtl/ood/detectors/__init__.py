"""Out-of-distribution detectors, all importable from here."""

from medmtl.ood.detectors.base import Detector, ViewDetector
from medmtl.ood.detectors.by_task import ByTask
from medmtl.ood.detectors.classifier import TaskClassifier
from medmtl.ood.detectors.distances import FRODO, KNN, Contrast, MDPool, PCAMahalanobis, ViM
from medmtl.ood.detectors.fusion import Fusion
from medmtl.ood.detectors.intensity import IntensityHistogram
from medmtl.ood.detectors.layers import LayerDetector
from medmtl.ood.detectors.output import OutputScore, Volume
from medmtl.ood.detectors.spectral import Spectral

__all__ = [
    "FRODO",
    "KNN",
    "ByTask",
    "Contrast",
    "Detector",
    "Fusion",
    "IntensityHistogram",
    "LayerDetector",
    "MDPool",
    "OutputScore",
    "PCAMahalanobis",
    "Spectral",
    "TaskClassifier",
    "ViM",
    "ViewDetector",
    "Volume",
]
