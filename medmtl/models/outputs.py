"""Outputs: what the output channels stand for, and how they become probabilities and labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from monai.data import MetaTensor
from torch import Tensor

from medmtl.data.classes import Classes
from medmtl.data.transforms import to_native


@dataclass(frozen=True)
class Head:
    """The output channels of a task.

    Attributes:
        classes: what they stand for.
        channels: those of the network: one a class, and before them that of the background, which classes that exclude
            each other have (a softmax over all); without one every class has a sigmoid of its own.
        background: whether there is one.
    """

    classes: Classes
    channels: tuple[int, ...]
    background: bool

    def log_odds(self, logits: Tensor) -> Tensor:
        """The log-odds of every class against all else, whose sigmoid is its probability.

        Args:
            logits: of the channels of this head, `(channels, *spatial)`.

        Returns:
            `(classes, *spatial)`. With a background these are z_k - log sum over j != k of exp z_j, so that a loss for
            one foreground logit is one of a softmax, class by class.
        """
        if not self.background:
            return logits
        before, after = [logits[0]], [logits[-1]]
        for value in logits[1:-1]:
            before.append(torch.logaddexp(before[-1], value))
        for value in logits[1:-1].flip(0):
            after.append(torch.logaddexp(after[-1], value))
        # Of class k: all channels before it, and all after it.
        rest = [torch.logaddexp(one, other) for one, other in zip(before[:-1], reversed(after[:-1]), strict=True)]
        return logits[1:] - torch.stack([*rest, before[-1]])

    def foreground(self, logits: Tensor) -> Tensor:
        """The log-odds of all classes together: against the background, or those of the most probable class.

        Args:
            logits: of the channels of this head, `(channels, *spatial)`.

        Returns:
            `(1, *spatial)`.
        """
        if not self.background:
            return logits if len(logits) == 1 else logits.amax(0, keepdim=True)
        return logits[1:].logsumexp(0, keepdim=True) - logits[:1]

    def parts(self, logits: MetaTensor, foreground: Tensor, native: MetaTensor) -> Tensor:
        """The label of a volume on the image's own grid, as numbers of parts, see `Classes`.

        Args:
            logits: of the channels of this head, `(channels, h, w, d)` in the working space.
            foreground: its probability on the image's own grid, `(H, W, D)`.
            native: a volume on that grid, `(1, H, W, D)`.

        Returns:
            uint8 `(H, W, D)`. Exclusive classes: the most probable one where the foreground has a probability of at
            least one half, so that the mask of all classes is that of the foreground. Classes that overlap: those of at
            least one half, a later one over an earlier one.
        """
        mask = foreground >= 0.5
        written = self.classes.written_parts
        if len(written) == 1:
            return mask.to(torch.uint8) * written[0]
        result = torch.zeros_like(mask, dtype=torch.uint8)
        best = torch.zeros_like(foreground)
        for part, odds in zip(written, self.log_odds(logits.as_tensor()), strict=True):
            likely = to_native(MetaTensor(torch.sigmoid(odds)[None], affine=logits.affine), native)
            over = likely > best if self.background else likely >= 0.5
            result[over] = part
            best = torch.maximum(best, likely)
        # Interpolation can leave every class of a voxel at 0, though not the foreground.
        result[mask & (result == 0)] = written[0]
        return result * mask


@dataclass(frozen=True)
class Outputs:
    """All heads of a network.

    Attributes:
        heads: by task; a network with one output for all tasks has one head, under None.
        channels: of all heads together.
    """

    heads: Mapping[str | None, Head]
    channels: int

    @classmethod
    def shared(cls) -> "Outputs":
        """One foreground for all tasks, as in Karimi & Gholipour (arXiv 2004.06569)."""
        return cls({None: Head(Classes.of_organ({1}), (0,), background=False)}, 1)

    @classmethod
    def per_task(cls, tasks: Mapping[str, Classes]) -> "Outputs":
        """A background for each task with exclusive classes, and a channel for each class.

        Args:
            tasks: their classes. Classes of the same name in several tasks share a channel; an organ of interest has no
                name, and shares none.
        """
        names: dict[tuple[str, str], int] = {}
        heads: dict[str | None, Head] = {}
        for task, classes in tasks.items():
            background = not classes.overlap
            own = [("background", task)] if background else []
            own += [("organ", task) if classes.merged else ("class", name) for name in classes.names]
            heads[task] = Head(classes, tuple(names.setdefault(name, len(names)) for name in own), background)
        return cls(heads, len(names))

    def of(self, heads: Sequence[str | None]) -> tuple[list[int], list[slice]]:
        """The channels of several heads one after the other, and the place of each."""
        channels: list[int] = []
        places = []
        for head in heads:
            places.append(slice(len(channels), len(channels) + len(self.heads[head].channels)))
            channels += self.heads[head].channels
        return channels, places
