"""Losses that MONAI lacks, for calibrated networks: plain modules of logits and labels, to be named by `class_path`."""

from medmtl.losses.ml1_ace import ML1ACE
from medmtl.losses.nacl import NACL
from medmtl.losses.svls import SVLS
from medmtl.losses.weighted_sum import WeightedSum

__all__ = ["ML1ACE", "NACL", "SVLS", "WeightedSum"]
