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
