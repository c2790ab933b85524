"""Trainings and tests without the layout of their figures, which is half of the time of a small one."""

import pytest
from matplotlib.figure import Figure

from medmtl.callbacks import calibration
from medmtl.report.test import figures, write

LAID_OUT = {
    figures: ("dice_by_task", "spectra", "score_distributions", "roc"),
    write: ("reliability_diagram", "case_slices", "calibration_map"),
    calibration: ("reliability_diagram",),
}


def leave_figures_empty(patch: pytest.MonkeyPatch) -> None:
    """Let trainings and tests make an empty figure for each of theirs, under its name."""
    for module, names in LAID_OUT.items():
        for name in names:
            patch.setattr(module, name, lambda *_, **__: Figure((1, 1)))
