"""The built-in shifts, by name."""

from dataclasses import dataclass

import numpy as np
from monai.data import MetaTensor

from medmtl.ood.shifts import geometric as geometry
from medmtl.ood.shifts import intensity
from medmtl.ood.shifts.intensity import Change
from medmtl.ood.shifts.shift import Kind, Shift


@dataclass(frozen=True)
class FunctionShift(Shift):
    """A shift by a function; see `Shift` for the other attributes.

    Attributes:
        function: image or label, strength and randomness -> the shifted one.
    """

    name: str
    function: Change
    strengths: tuple[float, ...] = ()
    unit: str = ""
    kind: Kind = "covariate"
    moves: bool = False
    library: str = ""

    def change(self, volume: MetaTensor, strength: float, random: np.random.Generator) -> MetaTensor:
        """See `Shift.change`."""
        return self.function(volume, strength, random)


RANGE = "of the intensity range"
LOG = "absolute logarithm"
FOLD = "times"

SHIFTS = {
    shift.name: shift
    for shift in (
        FunctionShift("noise", intensity.noise, (0.02, 0.05, 0.1, 0.15, 0.25), RANGE),
        FunctionShift("bias_field", intensity.bias_field, (0.3, 0.6, 0.9, 1.2, 1.5), LOG),
        FunctionShift("motion", intensity.motion, (0.5, 1, 2, 4, 8), "degrees", library="torchio"),
        FunctionShift(
            "ghosting", intensity.ghosting, (0.2, 0.4, 0.6, 0.8, 1.0), "of k-space planes", library="torchio"
        ),
        FunctionShift("spikes", intensity.spikes, (0.03, 0.06, 0.1, 0.15, 0.25), RANGE),
        FunctionShift("blur", intensity.blur, (0.5, 1, 1.5, 2, 3), "voxels"),
        FunctionShift("anisotropy", intensity.anisotropy, (2, 3, 4, 6, 8), FOLD),
        FunctionShift("contrast", intensity.contrast, (0.2, 0.4, 0.6, 0.8, 1.0), LOG),
        FunctionShift("inverted", intensity.inverted),
        FunctionShift("elastic", geometry.elastic, (0.02, 0.04, 0.06, 0.08, 0.1), "of the field of view", moves=True),
        FunctionShift("crop", geometry.crop, (0.1, 0.2, 0.3, 0.4, 0.5), "of each side", moves=True),
        FunctionShift("wrong_orientation", geometry.wrong_orientation, moves=True),
        FunctionShift("wrong_spacing", geometry.wrong_spacing, (1.2, 1.4, 1.6, 1.8, 2.0), FOLD, moves=True),
        FunctionShift("flip", geometry.flip, kind="control", moves=True),
        FunctionShift("declared_orientation", geometry.declared_orientation, kind="control", moves=True),
        FunctionShift("noise_only", intensity.noise_only, kind="nonsense"),
        FunctionShift("constant", intensity.constant, kind="nonsense"),
        FunctionShift("empty", intensity.empty, kind="nonsense"),
    )
}
