"""Reason: what sets an image apart from the training images of a task, in words and numbers."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Reason:
    """Something about an image or its mask that is unusual for a task.

    Attributes:
        key: of the evidence: a descriptor of the mask, or a detector.
        text: a clause for readers, such as "17 parts; masks of SarcomaCT in training have 1 to 3".
        deviation: how unusual it is, in standard deviations of the task's training images.
    """

    key: str
    text: str
    deviation: float


@dataclass(frozen=True)
class Compared:
    """A number that describes a mask, beside its range among the masks of a task's training images.

    Deviations are from the task's median, in its spreads, on the scale on which the descriptor is compared.

    Attributes:
        key: of the descriptor.
        label: its name.
        value: of the mask, with its unit, as text; empty for an empty mask.
        low: smallest value in training, likewise.
        high: largest one.
        deviation: of the value; None for an empty mask.
        low_deviation: of the smallest value in training.
        high_deviation: of the largest one.
    """

    key: str
    label: str
    value: str
    low: str
    high: str
    deviation: float | None
    low_deviation: float
    high_deviation: float

    @property
    def outside(self) -> bool:
        """Whether the value is outside the range of the training masks."""
        return self.deviation is None or not self.low_deviation <= self.deviation <= self.high_deviation
