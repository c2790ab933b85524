"""TaskHeads: the last layer of a network with outputs per task, and its loss."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from medmtl.errors import RunError
from medmtl.losses.masked import UNKNOWN, leave_out_unknown
from medmtl.models.outputs import Head, Outputs

SLOPE = 0.1  # of the activation between network and heads


class TaskHeads(nn.Module):
    """A 1 x 1 x 1 convolution from the features that a network gives to the output channels of all tasks.

    Only the channels of the head that is wanted are computed, so that their number in all costs nothing: a training
    step of five tasks with three classes each takes 1.4 times that of one shared output. As output channels of MONAI's
    UNet itself, whose last block convolves all with each other, they take 4.5 times.

    Args:
        features: channels that the network gives.
        outputs: what the channels stand for.
    """

    def __init__(self, features: int, outputs: Outputs) -> None:
        super().__init__()
        self.outputs = outputs
        self.last = nn.Conv3d(features, outputs.channels, 1)

    def get_extra_state(self) -> list[str]:
        """The channels by name, which a checkpoint keeps."""
        return self.outputs.names

    def set_extra_state(self, state: list[str]) -> None:
        """Check that a checkpoint has the same channels in the same order.

        Raises:
            RunError: it has others.
        """
        own = self.outputs.names
        if state != own:
            there, here = next(pair for pair in zip_longest(state, own, fillvalue="none") if pair[0] != pair[1])
            raise RunError(
                f"the checkpoint has other output channels than the tasks: {there} where they have {here}",
                fix="give the tasks and classes of its training, in their order",
            )

    @torch.no_grad()
    def take(self, state: Mapping[str, Any]) -> list[str]:
        """Take over the weights of channels that other heads call by the same names.

        Args:
            state: of these heads, which take as many features.

        Returns:
            The names of the channels that have none there, and stay as they are.
        """
        place = {name: number for number, name in enumerate(state["_extra_state"])}
        for number, name in enumerate(self.outputs.names):
            if name in place:
                for own, weight in self.last.named_parameters():
                    weight[number] = state[f"last.{own}"][place[name]]
        return [name for name in self.outputs.names if name not in place]

    def forward(self, features: Tensor, channels: Sequence[Sequence[int]]) -> Tensor:
        """The logits of some channels.

        Args:
            features: of the network, `(B, F, H, W, D)`.
            channels: the M channels of each image, or once those of all images.

        Returns:
            `(B, M, H, W, D)`.
        """
        chosen = torch.as_tensor(channels, device=features.device).expand(len(features), -1)
        weight, bias = self.last.weight.flatten(1)[chosen], self.last.bias[chosen]  # type: ignore[index]
        flat = leaky_relu(features, SLOPE).flatten(2)
        return torch.baddbmm(bias[..., None], weight, flat).unflatten(2, features.shape[2:])

    def every(self, features: Tensor) -> Tensor:
        """The logits of all channels, `(B, M, H, W, D)`, of features `(B, F, H, W, D)`."""
        found: Tensor = self.last(leaky_relu(features, SLOPE))
        return found

    def loss(
        self,
        loss: nn.Module,
        features: Tensor,
        label: Tensor,
        tasks: Sequence[str | None],
        marked: Sequence[Sequence[bool]],
    ) -> Tensor:
        """The loss of a batch: that of each class against all else, mean over the classes that a label marks.

        A class that is not marked has no term of its own. Where it may be, the others are told only that they are not.

        Args:
            loss: takes logits and labels of one foreground, both `(B, 1, H, W, D)`.
            features: of the network, `(B, F, H, W, D)`.
            label: numbers of parts and `UNKNOWN`, `(B, 1, H, W, D)`.
            tasks: of each image, whose head is trained.
            marked: of each image, whether the label marks each class of its task.
        """
        alike: dict[tuple[int, bool, int], list[int]] = defaultdict(list)
        for index, task in enumerate(tasks):
            head = self.outputs.heads[task]
            alike[len(head.channels), head.background, sum(marked[index])].append(index)
        total = features.new_zeros(())
        for together in alike.values():  # images with as many classes are computed at once
            heads = [self.outputs.heads[tasks[index]] for index in together]
            every = len(together) == len(features)
            chosen, truth = (features, label) if every else (features[together], label[together])
            logits = self(chosen, [head.channels for head in heads])
            known = [marked[index] for index in together]
            total = total + len(together) * class_loss(loss, heads, logits, truth, known)
        return total / len(features)


class ChosenChannels(TaskHeads):
    """Stands in for the heads of a graph that computes the logits of all channels itself: chooses some.

    Args:
        outputs: what the channels stand for.
    """

    def __init__(self, outputs: Outputs) -> None:
        nn.Module.__init__(self)
        self.outputs = outputs

    def forward(self, features: Tensor, channels: Sequence[Sequence[int]]) -> Tensor:
        """Some channels, once those of all images, of all logits `(B, M, H, W, D)`."""
        (chosen,) = channels
        return features[:, list(chosen)]

    def every(self, features: Tensor) -> Tensor:
        """They themselves."""
        return features


def class_loss(
    loss: Callable[[Tensor, Tensor], Tensor],
    heads: Sequence[Head],
    logits: Tensor,
    label: Tensor,
    marked: Sequence[Sequence[bool]],
) -> Tensor:
    """The loss of images whose heads have as many channels and marked classes, and a background or none.

    Args:
        loss: see `TaskHeads.loss`.
        heads: of each image.
        logits: of their heads, `(B, M, H, W, D)`.
        label: numbers of parts and `UNKNOWN`, `(B, 1, H, W, D)`.
        marked: see `TaskHeads.loss`.
    """
    odds = heads[0].log_odds(logits.transpose(0, 1)).transpose(0, 1)
    unknown = label == UNKNOWN
    rows, masks = [], []
    for index, (head, known) in enumerate(zip(heads, marked, strict=True)):
        for k, name in enumerate(head.classes.names):
            if known[k]:
                rows.append(index * odds.shape[1] + k)
                own = head.classes.mask(label[index], name).to(torch.uint8)
                masks.append(own.masked_fill_(unknown[index], UNKNOWN))
    every = odds.flatten(0, 1)[:, None]
    return loss(
        *leave_out_unknown(every if len(rows) == len(every) else every[rows], torch.stack(masks).to(odds.dtype))
    )
