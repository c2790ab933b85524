"""Dedicated, transfer and multi-task training, and arms of one's own, compared in one resumable experiment.

An arm of one's own is a subclass of `Arm` that a protocol names by `class_path`; `check_arm` is for its tests.
"""

from medmtl.experiment.plan.arms import Arm
from medmtl.experiment.plan.contract import check_arm
from medmtl.experiment.plan.setting import Planned, Setting

__all__ = ["Arm", "Planned", "Setting", "check_arm"]
