"""Out-of-distribution detectors, all importable from here."""

from collections.abc import Mapping

from medmtl.ood.detectors.base import Detector, ViewDetector
from medmtl.ood.detectors.by_task import ByTask
from medmtl.ood.detectors.classifier import TaskClassifier
from medmtl.ood.detectors.contract import check_detector
from medmtl.ood.detectors.distances import FRODO, KNN, Contrast, MDPool, PCAMahalanobis, ViM
from medmtl.ood.detectors.fusion import Fusion
from medmtl.ood.detectors.intensity import IntensityHistogram
from medmtl.ood.detectors.layers import LayerDetector
from medmtl.ood.detectors.output import OutputScore, Volume
from medmtl.ood.detectors.shape import Shape
from medmtl.ood.detectors.spectral import Spectral
from medmtl.ood.evidence.output_scores import OUTPUT_SCORES
from medmtl.ood.score import OODScore

__all__ = [
    "FRODO",
    "KNN",
    "SCORES",
    "ByTask",
    "Contrast",
    "Detector",
    "Fusion",
    "IntensityHistogram",
    "LayerDetector",
    "MDPool",
    "OutputScore",
    "PCAMahalanobis",
    "Shape",
    "Spectral",
    "TaskClassifier",
    "ViM",
    "ViewDetector",
    "Volume",
    "check_detector",
]

# The scores of the built-in detectors, by the name that they have by default.
SCORES: Mapping[str, OODScore] = {
    detector.name: detector.quantity
    for detector in (
        ByTask(),
        Fusion(),
        Spectral(),
        Spectral.published(),
        *map(OutputScore, OUTPUT_SCORES),
        FRODO(),
        MDPool(),
        PCAMahalanobis(),
        KNN(),
        ViM(),
        TaskClassifier(),
        IntensityHistogram(),
        IntensityHistogram("ihf_whitened", whitening=True),
        Contrast(),
        Volume(),
        Shape(),
    )
}
