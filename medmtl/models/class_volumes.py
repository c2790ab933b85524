"""The classes of a segmented volume on the image's own grid, one volume at a time."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from monai.data import MetaTensor
from torch import Tensor

from medmtl.calibration.scaling.vector import VectorScaling
from medmtl.data.working_space import to_native
from medmtl.models.outputs import Head


class ClassVolume(NamedTuple):
    """A class of a volume against all else, on the image's own grid.

    Attributes:
        name: of the class.
        probability: in [0, 1], `(H, W, D)`.
        label: the truth, bool `(H, W, D)`; False where it is unknown.
        known: where it is known, bool `(H, W, D)`; None if everywhere.
    """

    name: str
    probability: Tensor
    label: Tensor
    known: Tensor | None


@dataclass(frozen=True, eq=False)
class ClassVolumes:
    """The classes that the label of a volume marks; each is computed when it is asked for, and none is kept.

    Attributes:
        head: the output of the task.
        logits: of its channels, `(channels, h, w, d)` in the working space.
        foreground: the probability that the classes share, see `class_probabilities`, `(H, W, D)`.
        native: a volume on that grid, `(1, H, W, D)`.
        label: numbers of parts, see `Classes`, `(H, W, D)`.
        known: where the label says what a voxel is, bool `(H, W, D)`; None if everywhere.
        missing: the classes that it does not mark, which are left out.
        shares: scaling of the classes' shares in the foreground; None leaves them as they are.
    """

    head: Head
    logits: MetaTensor
    foreground: Tensor
    native: MetaTensor
    label: Tensor
    known: Tensor | None = None
    missing: Collection[str] = ()
    shares: VectorScaling | None = None

    @property
    def parts(self) -> dict[str, tuple[int, ...]]:
        """Class -> the numbers of its parts, of all classes."""
        return {name: self.head.classes.parts_of(name) for name in self.head.classes.names}

    def __iter__(self) -> Iterator[ClassVolume]:
        """One class after the other, in their order."""
        found = class_probabilities(self.head, self.logits, self.foreground, self.native, self.shares)
        for name, probability in zip(self.head.classes.names, found, strict=True):
            if name not in self.missing:
                yield ClassVolume(name, probability, self.head.classes.mask(self.label, name), self.known)


def class_probabilities(
    head: Head, logits: MetaTensor, foreground: Tensor, native: MetaTensor, shares: VectorScaling | None = None
) -> Iterator[Tensor]:
    """The probability of each class on the image's own grid, computed one after the other.

    Classes that exclude each other share the foreground: each has the part of it that it has in the softmax, so that
    they add up to it. With the network's own foreground these are the softmax probabilities themselves, interpolated;
    with a scaled one the sum is that one, and the parts are scaled by themselves or stay. Classes that overlap have a
    sigmoid each, which the foreground does not change.

    Args:
        head: the output of the task.
        logits: of its channels, `(channels, h, w, d)` in the working space.
        foreground: probability of all classes together, `(H, W, D)`.
        native: a volume on the image's own grid, `(1, H, W, D)`.
        shares: scaling of the parts of classes that exclude each other; None leaves them as they are.

    Yields:
        `(H, W, D)` in [0, 1], in the order of the classes.
    """
    names = head.classes.names
    if len(names) == 1:
        yield foreground
        return
    together = None
    if head.background:  # interpolation is linear: that of the sum is the sum of the classes
        odds = head.foreground(logits.as_tensor())
        together = to_native(MetaTensor(torch.sigmoid(odds), affine=logits.affine), native)
    for working in head.probabilities(logits, shares):
        own = to_native(working, native)
        if together is not None:
            # Where rounding leaves nothing of any class, they share alike.
            own = torch.where(together > 0, (own / together).clamp_(max=1), 1 / len(names)) * foreground
        yield own
