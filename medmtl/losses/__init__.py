"""Calibration losses that MONAI lacks: modules of logits and labels, named by `class_path` in `model.loss`."""

from medmtl.losses.contract import check_loss
from medmtl.losses.ml1_ace import ML1ACE
from medmtl.losses.nacl import NACL
from medmtl.losses.svls import SVLS
from medmtl.losses.weighted_sum import WeightedSum

__all__ = ["ML1ACE", "NACL", "SVLS", "WeightedSum", "check_loss"]
