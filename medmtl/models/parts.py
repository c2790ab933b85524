"""Parts: what segments images and gives verdicts, whichever file it was read from."""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace

from medmtl.calibration.scaling.per_task import TaskScalings
from medmtl.data.known_task import KnownTask
from medmtl.errors import ConfigError
from medmtl.models.sliding_window import VolumePredictor
from medmtl.ood.detectors.base import Detector
from medmtl.ood.mask_rule import MaskRule
from medmtl.ood.verdict import ConformalDetector


@dataclass(frozen=True)
class Parts:
    """A trained network with what was fitted to it: of a checkpoint, or of an exported folder.

    Attributes:
        tasks: that it was trained on.
        predictor: the network and its sliding windows.
        layers: whose feature maps the verdict needs.
        alpha: share of in-distribution images that may be rejected.
        detector: as configured, which says what evidence is needed.
        ood_detector: fitted, with its threshold; None without one.
        mask_rule: by which masks are checked; None without one.
        scalings: post-hoc scaling of probabilities; None without one.
    """

    tasks: Mapping[str, KnownTask]
    predictor: VolumePredictor
    layers: Sequence[str]
    alpha: float
    detector: Detector
    ood_detector: ConformalDetector | None
    mask_rule: MaskRule | None
    scalings: TaskScalings | None

    def with_alpha(self, alpha: float) -> "Parts":
        """The same, with another share of in-distribution images that may be rejected; this one stays as it is.

        Raises:
            ConfigError: it is no share.
        """
        if not 0 < alpha < 1:
            raise ConfigError(f"alpha={alpha}", fix="use a share between 0 and 1, such as 0.05")
        detector = copy(self.ood_detector)
        if detector is not None:
            detector.alpha = alpha
        rule = None if self.mask_rule is None else replace(self.mask_rule, alpha=alpha)
        return replace(self, alpha=alpha, ood_detector=detector, mask_rule=rule)
