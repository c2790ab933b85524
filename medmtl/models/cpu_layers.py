"""Layers of a network that a CPU computes faster than torch does by default, without a change of what they compute.

All figures are of one thread, torch 2.13 with oneDNN, four patches of 48 voxels a side, and MONAI's UNet with 16
features at half resolution. On other devices, in mixed precision and for an export the layers are torch's own.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

NARROW = 16  # channels: as many as one instruction takes on a CPU with AVX-512
FEW = 4  # output channels for which a transposed convolution is faster without oneDNN
LEVELS = 2**16  # of a random number of 16 bits


def speed_up(network: nn.Module) -> None:
    """Change layers so that a CPU computes them faster. Names and values of weights stay.

    - Convolutions with fewer than 16 channels on either side are given their input with the channels side by side, for
      which oneDNN has a fast gradient: 16 instead of 115 ms for one channel by one, with which MONAI's UNet ends. With
      many channels that layout gains nothing, since norms copy it back.
    - Transposed convolutions to at most four channels are computed as a matrix product, also without gradients: 3
      instead of 20 ms.
    - PReLU with one slope has its gradient from those of a leaky ReLU and of a sum: of 1.8 million values 2 instead of
      4 ms.
    - Dropout draws 16 random bits a value: 3 instead of 6 ms.

    Args:
        network: changed in place. Subclasses of torch's layers are left as they are.
    """
    for part in network.modules():
        if isinstance(part, nn.Conv3d | nn.ConvTranspose3d) and min(part.in_channels, part.out_channels) < NARROW:
            if type(part) is nn.ConvTranspose3d and part.out_channels <= FEW and part.groups == 1:
                part.__class__ = NarrowTranspose
            else:
                part.register_forward_pre_hook(_lay_out)
        elif type(part) is nn.PReLU and part.num_parameters == 1:
            part.__class__ = SingleSlope
        elif type(part) is nn.Dropout and not part.inplace:
            part.__class__ = SixteenBitDropout


class NarrowTranspose(nn.ConvTranspose3d):
    """A transposed convolution to few channels."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """As torch's."""
        if output_size is not None or not in_single_precision(input):
            return super().forward(input, output_size)
        options = (self.stride, self.padding, self.output_padding, self.dilation)
        found: Tensor = _Transposed.apply(input, self.weight, self.bias, options)
        return found


class SingleSlope(nn.PReLU):
    """A PReLU with one slope for all channels."""

    def forward(self, input: Tensor) -> Tensor:
        """As torch's."""
        if not trains(input):
            return super().forward(input)
        found: Tensor = _Sloped.apply(input, self.weight)
        return found


class SixteenBitDropout(nn.Dropout):
    """A dropout whose probability is rounded to a multiple of 2^-16, and what remains scaled accordingly."""

    def forward(self, input: Tensor) -> Tensor:
        """As torch's."""
        dropped = round(self.p * LEVELS)
        if not (self.training and trains(input) and 0 < dropped < LEVELS):
            return super().forward(input)
        count = input.numel()
        bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        kept = bits[:count].view(input.shape) >= dropped - LEVELS // 2
        return input * torch.where(kept, LEVELS / (LEVELS - dropped), 0.0)


def in_single_precision(features: Tensor) -> bool:
    """Whether features are computed on a CPU in single precision, and not traced for an export."""
    on_cpu = features.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    return on_cpu and features.dtype == torch.float32 and features.numel() > 0 and not torch.compiler.is_compiling()


def trains(features: Tensor) -> bool:
    """Whether they have a gradient besides."""
    return features.requires_grad and in_single_precision(features)


class _Transposed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor | None, options: tuple[Any, ...]) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.options = options
        stride, padding, output_padding, dilation = options
        size = list(weight.shape[2:])
        found: Tensor = torch.ops.aten.slow_conv_transpose3d(
            features.contiguous(), weight, size, bias, stride, padding, output_padding, dilation
        )
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        features, weight = ctx.saved_tensors
        stride, padding, output_padding, dilation = ctx.options
        found = torch.ops.aten.convolution_backward(
            *(gradient, _channels_last(features), weight, [weight.shape[1]], stride, padding, dilation),
            *(True, output_padding, 1, ctx.needs_input_grad[:3]),
        )
        # Plain again: a gradient of another layout slows all that it meets.
        return (None if found[0] is None else found[0].contiguous(), *found[1:], None)


class _LaidOut(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, features: Tensor) -> Tensor:
        return _channels_last(features)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:
        return gradient.contiguous()


class _Sloped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, features: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(features, slope)
        return torch.nn.functional.leaky_relu(features, float(slope))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        features, slope = ctx.saved_tensors
        below = features.clamp(max=0)
        of_slope = torch.dot(gradient.reshape(-1), below.reshape(-1)).reshape(slope.shape)
        return torch.ops.aten.leaky_relu_backward(gradient, features, float(slope), False), of_slope


def _lay_out(part: nn.Module, given: tuple[Any, ...]) -> tuple[Tensor, ...] | None:
    if not given or not trains(given[0]):  # none: called by keyword
        return None
    return (_LaidOut.apply(given[0]),)


def _channels_last(features: Tensor) -> Tensor:
    """The same `(B, C, h, w, d)` with the channels side by side in memory.

    By hand, since PyTorch takes one channel for both, contiguous and channels last.
    """
    _, channels, *size = features.shape
    return features.movedim(1, -1).flatten(1).unflatten(1, (*size, channels)).movedim(-1, 1)
