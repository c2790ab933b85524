"""The graph of a network: windows in, logits and the feature maps that the verdict needs out; as ONNX or a program."""

import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from medmtl.building import building
from medmtl.errors import ConfigError, RunError
from medmtl.models.channels import input_channels, one_line
from medmtl.models.sliding_window import VolumePredictor

INPUT, LOGITS = "window", "logits"
OPSET = 20  # onnxruntime runs it since 1.17
SAFE = "use --to safetensors, or bundle"
COARSEST = 32  # the largest step in which sides of windows are let free


class WithFeatures(nn.Module):
    """A network that gives the logits of all its output channels, and the feature maps of some layers.

    Args:
        predictor: the network, and its heads.
        layers: names of the layers.
    """

    def __init__(self, predictor: VolumePredictor, layers: Sequence[str]) -> None:
        super().__init__()
        self.network = predictor.network
        self.heads = predictor.heads
        self.layers = list(layers)

    def forward(self, windows: Tensor) -> tuple[Tensor, ...]:
        """Logits `(B, M, H, W, D)`, and a feature map a layer, of windows `(B, C, H, W, D)`."""
        found: dict[str, Tensor] = {}
        modules = dict(self.network.named_modules())

        def keep(layer: str) -> Any:
            return lambda module, inputs, output: found.__setitem__(layer, output)

        handles = [modules[layer].register_forward_hook(keep(layer)) for layer in self.layers]
        try:
            logits = self.network(windows)
        finally:
            for handle in handles:
                handle.remove()
        if self.heads is not None:
            logits = self.heads.every(logits)
        return (logits, *(found[layer] for layer in self.layers))


def outputs_of(layers: Sequence[str]) -> list[str]:
    """Names of the outputs of a graph with these layers."""
    return [LOGITS, *(f"features.{layer}" for layer in layers)]


def program_of(predictor: VolumePredictor, layers: Sequence[str]) -> tuple[ExportedProgram, int | None]:
    """The network as an exported program.

    Args:
        predictor: the network, its heads and its windows.
        layers: whose feature maps it gives.

    Returns:
        The program, which takes any number of windows; and the number of which sides of a window must be a multiple, or
        None where the network takes windows of its size alone.

    Raises:
        ConfigError: the network cannot be exported.
    """
    module = WithFeatures(predictor, layers).eval()
    sizes = predictor.patch_size
    step = math.gcd(COARSEST, *sizes)
    free = {axis + 2: _multiple(step, axis) for axis in range(3)}
    # A side that is one step long would be taken for a constant.
    larger = tuple(max(side, 2 * step) for side in sizes)
    try:
        return _exported(module, larger, {0: Dim("batch"), **free}), step
    except Exception:
        logging.getLogger(__name__).debug("windows of %s alone", sizes, exc_info=True)
    with building(lambda reason: ConfigError(f"the network cannot be exported as a graph {reason}", fix=SAFE)):
        return _exported(module, sizes, {0: Dim("batch")}), None


def _multiple(step: int, axis: int) -> Any:
    side = Dim(f"side{axis}", min=1)
    return step * side if step > 1 else side


def _exported(module: WithFeatures, sizes: Sequence[int], dynamic: dict[int, Any]) -> ExportedProgram:
    like = next(module.network.parameters())
    example = torch.zeros(2, input_channels(module.network), *sizes, dtype=like.dtype, device=like.device)
    with torch.no_grad(), _quiet():
        return torch.export.export(module, (example,), dynamic_shapes=(dynamic,))


def write_onnx(path: Path, program: ExportedProgram, outputs: Sequence[str]) -> None:
    """Write a program as ONNX, all weights in the one file.

    Args:
        path: of the file.
        program: of `program_of`.
        outputs: names of its outputs.

    Raises:
        ConfigError: the network has an operation that ONNX has not.
    """
    with building(lambda reason: ConfigError(f"the network cannot be exported to ONNX {reason}", fix=SAFE)), _quiet():
        written = torch.onnx.export(
            program, input_names=[INPUT], output_names=list(outputs), opset_version=OPSET, dynamo=True, verbose=False
        )
        assert written is not None
        written.save(path, external_data=False)


def write_program(path: Path, program: ExportedProgram) -> None:
    """Write a program as `torch.export` keeps it."""
    with _quiet():
        torch.export.save(program, path)


def check_equal(one: VolumePredictor, other: VolumePredictor, layers: Sequence[str], most: float = 1e-4) -> float:
    """Check that a network in another form gives what the network itself gives, logits and features.

    Args:
        one: the network, and its heads.
        other: the same in another form.
        layers: whose feature maps are compared.
        most: that may differ, as a share of the largest absolute value.

    Returns:
        The largest difference, as such a share.

    Raises:
        RunError: they differ by more.
    """
    like = next(one.network.parameters())
    shape = (3, input_channels(one.network), *one.patch_size)
    windows = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(like)
    with torch.inference_mode():
        own, found = (WithFeatures(each, layers).eval()(windows) for each in (one, other))
    worst = 0.0
    for name, expected, got in zip(outputs_of(layers), own, found, strict=True):
        largest = expected.abs().max().clamp_min(torch.finfo(expected.dtype).tiny)  # a map may be zero everywhere
        difference = float((expected - got).abs().max() / largest)
        if not difference <= most:
            raise RunError(f"what was exported differs from the network by {difference:.1e} in {name}", fix=SAFE)
        worst = max(worst, difference)
    return worst


def refused(what: str, error: Exception) -> RunError:
    """The error for a file of an exported folder that cannot be used."""
    return RunError(f"{what} cannot be used ({one_line(error)})", fix="export the run again")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the advice that exporters give their developers."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "torch.fx", "onnxscript", "onnx_ir")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
