"""TaskHeads: the last layer of a network with outputs per task, and its loss."""

from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from medmtl.losses.masked import UNKNOWN, leave_out_unknown
from medmtl.models.outputs import Head, Outputs

SLOPE = 0.1  # of the activation between network and heads


class TaskHeads(nn.Module):
    """A 1 x 1 x 1 convolution from the features that a network gives to the output channels of all tasks.

    Only the channels of the head that is wanted are computed, so that their number in all costs nothing: a training
    step of five tasks with three classes each takes 1.3 times that of one shared output. As output channels of MONAI's
    UNet itself, whose last block convolves them all with each other, they take 4.5 times.

    Args:
        features: channels that the network gives.
        outputs: what the channels stand for.
    """

    def __init__(self, features: int, outputs: Outputs) -> None:
        super().__init__()
        self.outputs = outputs
        self.last = nn.Conv3d(features, outputs.channels, 1)

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

    def loss(
        self, loss: nn.Module, features: Tensor, label: Tensor, tasks: Sequence[str | None], marked: Sequence[int]
    ) -> Tensor:
        """The loss of a batch: that of each class against all else, mean over the classes that a label marks.

        A class that is not marked has no term of its own. Where it may be, the others are told only that they are not.

        Args:
            loss: takes logits and labels of one foreground, both `(B, 1, H, W, D)`.
            features: of the network, `(B, F, H, W, D)`.
            label: numbers of parts and `UNKNOWN`, `(B, 1, H, W, D)`.
            tasks: of each image, whose head is trained.
            marked: of each image; bit k is set if the label marks class k of the task.
        """
        alike: dict[tuple[int, bool, int], list[int]] = defaultdict(list)
        for index, task in enumerate(tasks):
            head = self.outputs.heads[task]
            alike[len(head.channels), head.background, marked[index].bit_count()].append(index)
        total = features.new_zeros(())
        for together in alike.values():  # images with as many classes are computed at once
            heads = [self.outputs.heads[tasks[index]] for index in together]
            logits = self(features[together], [head.channels for head in heads])
            bits = [marked[index] for index in together]
            total = total + len(together) * class_loss(loss, heads, logits, label[together], bits)
        return total / len(features)


def class_loss(
    loss: Callable[[Tensor, Tensor], Tensor],
    heads: Sequence[Head],
    logits: Tensor,
    label: Tensor,
    marked: Sequence[int],
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
    rows, targets = [], []
    for head, own, parts, hidden, bits in zip(heads, odds, label, unknown, marked, strict=True):
        known = [k for k in range(len(own)) if bits >> k & 1]
        masks = [torch.isin(parts, parts.new_tensor(head.classes.parts_of(head.classes.names[k]))) for k in known]
        rows.append(own if len(known) == len(own) else own[known])
        targets.append(torch.cat(masks).to(odds.dtype).masked_fill(hidden, UNKNOWN))
    return loss(*leave_out_unknown(torch.cat(rows)[:, None], torch.cat(targets)[:, None]))
