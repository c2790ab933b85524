"""Outputs: what the output channels stand for, and how they become probabilities and labels."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from monai.data import MetaTensor
from torch import Tensor

from medmtl.calibration.scaling.vector import VectorScaling
from medmtl.data.classes import ORGAN, Classes
from medmtl.data.working_space import to_native
from medmtl.errors import ConfigError


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
        first, *between, last = logits.unbind()  # not by index, of which each would have a gradient of the whole
        before, after = [first], [last]
        for value in between:
            before.append(torch.logaddexp(before[-1], value))
        for value in reversed(between):
            after.append(torch.logaddexp(after[-1], value))
        # Of class k: all channels before it, and all after it.
        rest = [torch.logaddexp(one, other) for one, other in zip(before[:-1], reversed(after[:-1]), strict=True)]
        rest.append(before[-1])
        return torch.stack([own - others for own, others in zip((*between, last), rest, strict=True)])

    def foreground(self, logits: Tensor) -> Tensor:
        """The log-odds of all classes together: against the background, or those of the most probable class.

        Args:
            logits: of the channels of this head, `(channels, *spatial)`.

        Returns:
            `(1, *spatial)`.
        """
        if not self.background:
            return logits if len(logits) == 1 else _single(logits.amax(0, keepdim=True))
        return _log_sum(logits[1:]) - _single(logits[:1])

    def probabilities(self, logits: MetaTensor, shares: VectorScaling | None = None) -> Iterator[MetaTensor]:
        """The probability of each class in the working space, one after the other, so that one volume is held.

        Args:
            logits: of the channels of this head, `(channels, h, w, d)`.
            shares: scaling of the logarithm of each class's share in the foreground, which itself stays as it is; of a
                head with a background.

        Yields:
            `(1, h, w, d)` float32: a softmax, or a sigmoid each.
        """
        channels = logits.as_tensor()
        logs: Iterable[Tensor] = map(_single, channels[1:] if self.background else channels)
        every = _log_sum(channels)[0] if self.background else None
        if every is not None and shares is not None:
            together = _log_sum(channels[1:])[0]
            logs = _scaled(shares, channels[1:], together)
            every = every - together + _log_total(_scaled(shares, channels[1:], together))
        for log in logs:
            found = torch.sigmoid(log) if every is None else (log - every).exp_()
            yield MetaTensor(found[None], affine=logits.affine)

    def with_shares(self, logits: MetaTensor, shares: VectorScaling | None) -> MetaTensor:
        """The logits of a head with a background, whose softmax has the shares of the classes scaled.

        Args:
            logits: of the channels of this head, `(channels, h, w, d)`.
            shares: see `probabilities`; None leaves them as they are.
        """
        if shares is None:
            return logits
        channels = logits.as_tensor()
        scaled = torch.stack(list(_scaled(shares, channels[1:], _log_sum(channels[1:])[0])))
        within = scaled - _log_sum(scaled) + _log_sum(channels[1:])
        return MetaTensor(torch.cat([_single(channels[:1]), within]), affine=logits.affine)

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
        for part, likely in zip(written, self.probabilities(logits), strict=True):
            likely = to_native(likely, native)
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
        names: of the channels of all heads together, in their order.
    """

    heads: Mapping[str | None, Head]
    names: list[str]

    @property
    def channels(self) -> int:
        """Channels of all heads together."""
        return len(self.names)

    @classmethod
    def shared(cls) -> "Outputs":
        """One foreground for all tasks, as in Karimi & Gholipour (arXiv 2004.06569)."""
        return cls({None: Head(Classes.of_organ({1}), (0,), background=False)}, [ORGAN])

    @classmethod
    def per_task(cls, tasks: Mapping[str, Classes]) -> "Outputs":
        """A background for each task with exclusive classes, and a channel for each class.

        Args:
            tasks: their classes. Classes of the same name in several tasks share a channel; an organ of interest has no
                name, and shares none.

        Raises:
            ConfigError: a channel would be shared by classes that exclude others and by such that overlap: a logit
                beside those of a softmax means nothing by itself.
        """
        first: dict[str, str] = {}
        for task, classes in tasks.items():
            for name in () if classes.merged else classes.names:
                other = first.setdefault(name, task)
                if tasks[other].overlap != classes.overlap:
                    first_of, second = (other, task) if tasks[other].overlap else (task, other)
                    raise ConfigError(
                        f"class {name} is a region that overlaps others in {first_of} and excludes them in {second}",
                        fix="rename it in one of the two, so that they share no output",
                    )
        names: dict[tuple[str, str], int] = {}
        heads: dict[str | None, Head] = {}
        for task, classes in tasks.items():
            background = not classes.overlap
            own = [("background", task)] if background else []
            own += [("organ", task) if classes.merged else ("class", name) for name in classes.names]
            heads[task] = Head(classes, tuple(names.setdefault(name, len(names)) for name in own), background)
        return cls(heads, [f"{kind} {name}" for kind, name in names])

    def of(self, heads: Sequence[str | None]) -> tuple[list[int], list[slice]]:
        """The channels of several heads one after the other, and the place of each."""
        channels: list[int] = []
        places = []
        for head in heads:
            places.append(slice(len(channels), len(channels) + len(self.heads[head].channels)))
            channels += self.heads[head].channels
        return channels, places


def _log_sum(logits: Tensor) -> Tensor:
    """The logarithm of the sum of exponentials over channels, `(1, *spatial)`, holding one volume at a time."""
    return _log_total(_single(logit[None]) for logit in logits)


def _log_total(logits: Iterable[Tensor]) -> Tensor:
    """The same of volumes that are computed one after the other, of their shape."""
    return reduce(torch.logaddexp, logits)


def _scaled(shares: VectorScaling, logits: Tensor, together: Tensor) -> Iterator[Tensor]:
    """The scaled logarithm of each class's share, up to what makes them add up to 1, one volume after the other."""
    return (shares.of_class(number, _single(logit) - together) for number, logit in enumerate(logits))


def _single(logits: Tensor) -> Tensor:
    """Logits that large volumes have in half precision, in single precision."""
    return logits.float() if logits.dtype == torch.float16 else logits
