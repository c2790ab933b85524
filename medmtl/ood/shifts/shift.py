"""Shifts: what can be wrong with an image of a familiar kind, at five severities where severity has a meaning."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from monai.data import MetaTensor

from medmtl.errors import ConfigError
from medmtl.ood.shifts import geometric as geometry
from medmtl.ood.shifts import intensity
from medmtl.ood.shifts.intensity import Change

Kind = Literal["covariate", "control", "nonsense"]


@dataclass(frozen=True)
class Shift:
    """One way in which an image can differ from the training images.

    Attributes:
        name: how tables and files call it.
        kind: `covariate`: should be detected; `control`: should change nothing; `nonsense`: no image at all.
        change: image or label, strength and randomness -> the shifted one.
        strengths: of severities 1 to 5, rising, in the unit that `change` names; empty where severity has no meaning.
        moves: whether the organ moves with it, so that the label must follow.
        needs_torchio: whether that library does it.
    """

    name: str
    kind: Kind
    change: Change
    strengths: tuple[float, ...] = ()
    moves: bool = False
    needs_torchio: bool = False

    @property
    def severities(self) -> tuple[int, ...]:
        """1 to 5, or 0 alone where severity has no meaning."""
        return tuple(range(1, len(self.strengths) + 1)) or (0,)

    def check(self) -> None:
        """See whether what the shift needs is there, before hours are spent on others.

        Raises:
            ConfigError: torchio is needed and not installed.
        """
        if self.needs_torchio:
            intensity.torchio()

    def apply(self, image: MetaTensor, severity: int, seed: int) -> MetaTensor:
        """Shift an image.

        Args:
            image: `(1, H, W, D)` on its own grid, on any scale.
            severity: one of `severities`.
            seed: decides directions and places, never the strength; the same for all severities of a case, so that
                they differ in strength alone.

        Returns:
            `(1, H, W, D)` float32, a new tensor, on the same grid unless the shift is geometric.

        Raises:
            ConfigError: the shift has no such severity, or torchio is needed and not installed.
        """
        return self._applied(image.float(), severity, seed)

    def apply_to_label(self, label: MetaTensor, severity: int, seed: int) -> MetaTensor | None:
        """Shift a label along with its image.

        Args:
            label: `(1, H, W, D)` of whole numbers on the grid of the image.
            severity: as for the image.
            seed: as for the image.

        Returns:
            The label on the grid of the shifted image, of the same type; None for nonsense, where nothing is left to
            segment.
        """
        if self.kind == "nonsense":
            return None
        return self._applied(label, severity, seed) if self.moves else label

    def _applied(self, volume: MetaTensor, severity: int, seed: int) -> MetaTensor:
        if severity not in self.severities:
            known = ", ".join(map(str, self.severities))
            raise ConfigError(f"shift {self.name} has no severity {severity}", fix=f"choose among {known}")
        strength = self.strengths[severity - 1] if self.strengths else 0.0
        return self.change(volume, strength, np.random.default_rng(seed))


SHIFTS = {
    shift.name: shift
    for shift in (
        Shift("noise", "covariate", intensity.noise, (0.02, 0.05, 0.1, 0.15, 0.25)),
        Shift("bias_field", "covariate", intensity.bias_field, (0.3, 0.6, 0.9, 1.2, 1.5)),
        Shift("motion", "covariate", intensity.motion, (0.5, 1, 2, 4, 8), needs_torchio=True),
        Shift("ghosting", "covariate", intensity.ghosting, (0.2, 0.4, 0.6, 0.8, 1.0), needs_torchio=True),
        Shift("spikes", "covariate", intensity.spikes, (0.03, 0.06, 0.1, 0.15, 0.25)),
        Shift("blur", "covariate", intensity.blur, (0.5, 1, 1.5, 2, 3)),
        Shift("anisotropy", "covariate", intensity.anisotropy, (2, 3, 4, 6, 8)),
        Shift("contrast", "covariate", intensity.contrast, (0.2, 0.4, 0.6, 0.8, 1.0)),
        Shift("inverted", "covariate", intensity.inverted),
        Shift("elastic", "covariate", geometry.elastic, (0.02, 0.04, 0.06, 0.08, 0.1), moves=True),
        Shift("crop", "covariate", geometry.crop, (0.1, 0.2, 0.3, 0.4, 0.5), moves=True),
        Shift("wrong_orientation", "covariate", geometry.wrong_orientation, moves=True),
        Shift("wrong_spacing", "covariate", geometry.wrong_spacing, (1.2, 1.4, 1.6, 1.8, 2.0), moves=True),
        Shift("flip", "control", geometry.flip, moves=True),
        Shift("declared_orientation", "control", geometry.declared_orientation, moves=True),
        Shift("noise_only", "nonsense", intensity.noise_only),
        Shift("constant", "nonsense", intensity.constant),
        Shift("empty", "nonsense", intensity.empty),
    )
}
