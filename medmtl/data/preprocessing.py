"""Preprocessing: how an image is prepared for the network."""

from typing import NamedTuple


class Preprocessing(NamedTuple):
    """How an image is prepared: working spacing and intensity, and which output of the network is read.

    Tasks with the same preprocessing prepare an image in the same way, so that the preprocessing alone cannot tell the
    network the task.

    Attributes:
        spacing: voxel size in mm, right-left, anterior-posterior, superior-inferior.
        window: lower and upper Hounsfield unit of CT; None = percentiles of the image and z-score.
        head: the task whose output channels are read; None for a network with one output for all tasks.
    """

    spacing: tuple[float, float, float]
    window: tuple[float, float] | None
    head: str | None = None

    @property
    def image(self) -> "Preprocessing":
        """What decides the input of the network alone, whichever output is read."""
        return self._replace(head=None)

    def __str__(self) -> str:
        """For reports: `1 x 1 x 1 mm, z-score`, and the head where there is one."""
        intensity = "z-score" if self.window is None else f"{self.window[0]:g} to {self.window[1]:g} HU"
        prepared = f"{' x '.join(f'{size:g}' for size in self.spacing)} mm, {intensity}"
        return prepared if self.head is None else f"{prepared}, output of {self.head}"
