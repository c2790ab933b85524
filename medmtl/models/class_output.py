"""ClassOutput: what a network says of the classes of a task, as label values and as a probability a class."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray

from medmtl.calibration.scaling.vector import VectorScaling
from medmtl.data.classes import Classes
from medmtl.data.known_task import KnownTask
from medmtl.models.class_volumes import class_probabilities
from medmtl.models.outputs import Head


def predicted_classes(task: KnownTask, head: Head) -> Classes:
    """The classes that masks of a task show.

    Args:
        task: of the training.
        head: the output that is read for it. Where that is one for all tasks, several classes are one organ.
    """
    classes = task.classes
    return classes if len(classes.names) == len(head.classes.names) else classes.merge()


@dataclass(frozen=True, eq=False)
class ClassOutput:
    """What a network says of the classes of a task.

    Attributes:
        classes: of the task, see `predicted_classes`.
        head: the output that was read.
        logits: of its channels, `(channels, h, w, d)` float32 in the working space, on the CPU; None with one class.
        shares: post-hoc scaling of the classes' shares in the foreground; None without one.
    """

    classes: Classes
    head: Head
    logits: MetaTensor | None
    shares: VectorScaling | None = None

    @classmethod
    def of(cls, task: KnownTask, head: Head, logits: MetaTensor, shares: VectorScaling | None = None) -> "ClassOutput":
        """The output for a task; the logits are kept where there are several classes."""
        kept = None
        if len(head.classes.names) > 1:
            own = logits.as_tensor()
            part = own.untyped_storage().nbytes() > own.nbytes  # of a tensor with the logits of other heads, too
            kept = MetaTensor(own.to("cpu", copy=part), affine=logits.affine)
        return cls(predicted_classes(task, head), head, kept, shares)

    @property
    def labels(self) -> dict[str, int]:
        """Class -> label value in the mask, in the order of the classes; empty for an organ of interest."""
        return {} if self.classes.merged else dict(zip(self.classes.names, self.classes.written, strict=True))

    @property
    def segments(self) -> dict[str, frozenset[int]]:
        """Class -> all label values of the mask that belong to it; empty for an organ of interest."""
        return {} if self.classes.merged else dict(self.classes.values)

    def mask(self, foreground: torch.Tensor, native: MetaTensor) -> NDArray[np.unsignedinteger]:
        """The mask in label values.

        Args:
            foreground: its probability on the image's own grid, `(H, W, D)`.
            native: the image on that grid, `(C, H, W, D)`.

        Returns:
            `(H, W, D)`: the label values of the dataset, or 1 for an organ of interest; uint8 where they fit, else
            uint16 or uint32.
        """
        if self.logits is None:
            organ = (foreground >= 0.5).to(torch.uint8).numpy()
            return organ.astype(_smallest(self.classes), copy=False) * self.classes.written[0]
        parts = self.head.parts(self.logits, foreground, native[:1])
        values = np.zeros(len(self.head.classes.parts) + 1, _smallest(self.classes))
        values[list(self.head.classes.written_parts)] = self.classes.written
        return values[parts.numpy()]

    def probabilities(self, foreground: NDArray[np.float32], native: MetaTensor) -> Iterator[NDArray[np.float32]]:
        """The probability of every class, one after the other: all at once fill the memory where they are many.

        Args:
            foreground: its probability after post-hoc scaling, on the image's own grid, `(H, W, D)`.
            native: the image on that grid, `(C, H, W, D)`.

        Yields:
            `(H, W, D)` float32 in [0, 1], in their order. Classes that exclude each other: the probability of each
            given the foreground after vector scaling, times that of the foreground, so that they add up to it. The mask
            is that of the network before scaling, so that another class may be the most probable one in it. Classes
            that overlap: the sigmoid of each, which post-hoc scaling does not change. One class: the foreground.
        """
        if self.logits is None:
            yield foreground
            return
        given = torch.from_numpy(foreground)
        for probability in class_probabilities(self.head, self.logits, given, native[:1], self.shares):
            yield probability.numpy()


def volumes_ml(
    mask: NDArray[np.unsignedinteger], segments: Mapping[str, frozenset[int]], voxel_ml: float
) -> dict[str, float]:
    """The volume of every class.

    Args:
        mask: `(H, W, D)`, label values.
        segments: class -> its label values.
        voxel_ml: volume of a voxel, ml.
    """
    counts = dict(zip(*(each.tolist() for each in np.unique(mask, return_counts=True)), strict=True))
    return {name: sum(counts.get(value, 0) for value in values) * voxel_ml for name, values in segments.items()}


def _smallest(classes: Classes) -> np.dtype[np.unsignedinteger]:
    """The smallest type that holds all label values of a mask."""
    return np.min_scalar_type(max(classes.written))
