"""The network of an exported folder: run by onnxruntime, as a program of torch, or built and given its weights.

The folder may be anyone's. A graph of ONNX holds no code of its own and is checked for files that it names; a
network that is built is of the classes that a checkpoint may name, too. Reading a program of torch may run its author's
code.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser
from torch import Tensor, nn

from medmtl.building import building
from medmtl.errors import ConfigError, RunError
from medmtl.export.graph import INPUT, refused
from medmtl.export.record import Record, checked_file
from medmtl.extras import how_to_install
from medmtl.models.graph_network import GraphNetwork
from medmtl.runs.checkpoint import read_archive
from medmtl.training.trust import FIX, Checker


def network_of(folder: Path, record: Record, device: str, trust: bool) -> nn.Module:
    """The network of an exported folder, in evaluation mode and where it was read to.

    Args:
        folder: the folder.
        record: its record.
        device: as torch names it.
        trust: build any class that the record names, and load a program of torch.

    Raises:
        RunError: the file is missing, not what was written, not accepted, or cannot be used.
        ConfigError: a package is not installed.
    """
    path = checked_file(folder, record, record.network.file)
    if record.network.builds is not None:
        network = _built(record.network.builds, path, folder, trust)
    else:
        if record.kind == "onnx":
            run = open_onnx(path, record.network.outputs, device)
        elif record.kind == "program":
            run = open_program(path, device, trust)
        else:
            raise RunError(f"{folder} is of kind {record.kind}, which has no graph", fix="export the run again")
        network = GraphNetwork(run, record.network.layers, record.network.channels)
    return network.eval()


def open_onnx(path: Path, outputs: Sequence[str], device: str) -> Callable[[Tensor], list[Tensor]]:
    """What runs a graph of ONNX, with onnxruntime.

    Args:
        path: of the file.
        outputs: names of those that are wanted.
        device: on a GPU, where onnxruntime has support for it.

    Raises:
        RunError: the file is no graph of ONNX with these outputs, or names other files.
        ConfigError: onnxruntime is not installed.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError:
        raise ConfigError(
            f"{path} is run by onnxruntime, which is not installed", fix=how_to_install("export")
        ) from None
    content = path.read_bytes()
    try:
        if _names_files(onnx.ModelProto.FromString(content)):
            raise RunError(f"{path} names other files, which are not read", fix="export the run again")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        wanted = ["CUDAExecutionProvider"] if torch.device(device).type == "cuda" else []
        available = [each for each in wanted if each in onnxruntime.get_available_providers()]
        session = onnxruntime.InferenceSession(content, options, providers=[*available, "CPUExecutionProvider"])
        has = [[each.name for each in own] for own in (session.get_inputs(), session.get_outputs())]
        if has[0] != [INPUT] or not set(outputs) <= set(has[1]):
            raise RunError(f"{path} is a graph from {has[0]} to {has[1]}", fix="export the run again")
    except RunError:
        raise
    except Exception as error:  # onnxruntime has classes of its own for each kind
        raise refused(str(path), error) from None

    def run(windows: Tensor) -> list[Tensor]:
        return [torch.from_numpy(found) for found in session.run(list(outputs), {INPUT: windows.cpu().numpy()})]

    return run


def open_program(path: Path, device: str, trust: bool) -> Callable[[Tensor], list[Tensor]]:
    """What runs a program of `torch.export`.

    Args:
        path: of the file.
        device: as torch names it.
        trust: reading it may run code of its author; it is not read without.

    Raises:
        RunError: it is not trusted, or no program.
    """
    if not trust:
        raise RunError(f"{path} is a program of torch, and reading one may run its author's code", fix=FIX)
    try:
        module = torch.export.load(path).module().to(device)
    except Exception as error:
        raise refused(str(path), error) from None

    def run(windows: Tensor) -> list[Tensor]:
        return list(module(windows.to(device)))

    return run


def _built(spec: dict[str, Any], weights: Path, folder: Path, trust: bool) -> nn.Module:
    """A network that is built, and given its weights."""
    chosen = spec if trust else Checker(str(folder)).value(spec, nn.Module, "network.builds")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--network", type=nn.Module)
    with building(lambda reason: RunError(f"{folder} holds a network that cannot be built {reason}", fix=FIX)):
        network: nn.Module = parser.instantiate_classes(parser.parse_object({"network": chosen})).network
    state = _weights(weights)
    try:
        network.load_state_dict(state)
    except Exception as error:
        raise refused(str(weights), error) from None
    return network


def _weights(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        try:
            from safetensors.torch import load_file
        except ImportError:
            raise ConfigError(
                f"{path} is read by safetensors, which is not installed", fix=how_to_install("export")
            ) from None
        try:
            return load_file(path)
        except Exception as error:
            raise refused(str(path), error) from None
    return read_archive(path)


def _names_files(message: Any) -> bool:
    """Whether a part of a graph keeps its numbers in another file."""
    if message.DESCRIPTOR.name == "TensorProto":
        return bool(message.external_data) or message.data_location == message.EXTERNAL
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            parts = [value] if hasattr(value, "ListFields") else value
            if any(map(_names_files, parts)):
                return True
    return False
