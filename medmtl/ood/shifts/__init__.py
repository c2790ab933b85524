"""Shifts: changes of images that a benchmark should detect, ignore, or reject."""

from medmtl.ood.shifts.builtin import SHIFTS
from medmtl.ood.shifts.contract import check_shift
from medmtl.ood.shifts.shift import Kind, Shift

__all__ = ["SHIFTS", "Kind", "Shift", "check_shift"]
