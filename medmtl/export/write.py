"""Write an exported folder: beside its place, checked by reading it back, and then moved there."""

import json
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medmtl.errors import ConfigError, RunError
from medmtl.export.graph import check_equal, outputs_of, program_of, write_onnx, write_program
from medmtl.export.load import load_exported
from medmtl.export.record import (
    FORMAT,
    SCHEMA,
    STATE,
    NetworkRecord,
    Record,
    TaskRecord,
    VerdictRecord,
    WindowsRecord,
    file_digest,
    read_record,
)
from medmtl.export.restore import HEADS, MASKS, OOD, SCALING
from medmtl.export.schema import record_schema
from medmtl.export.state import Arrays, split, write_arrays
from medmtl.exported import RECORD, Kind, is_exported
from medmtl.extras import how_to_install
from medmtl.files import resolved, write_text
from medmtl.models.channels import input_channels
from medmtl.models.parts import Parts
from medmtl.ood.detector_options import detector_of, options_of
from medmtl.typed import typed

FILES: Mapping[Kind, str] = {
    "bundle": "models/model.pt",
    "onnx": "network.onnx",
    "program": "network.pt2",
    "safetensors": "network.safetensors",
}
GRAPHS = ("onnx", "program")


@dataclass(frozen=True)
class Source:
    """What is exported.

    Attributes:
        parts: network, tasks, scaling and OOD detector.
        name: of the run.
        checkpoint: SHA-256 of the checkpoint.
        network: class and arguments of the network, as the checkpoint names them.
        versions: of the packages.
    """

    parts: Parts
    name: str
    checkpoint: str
    network: dict[str, Any]
    versions: dict[str, str]


def write_network(folder: Path, kind: Kind, source: Source) -> NetworkRecord:
    """Write the network of a folder.

    Args:
        folder: the folder.
        kind: of it.
        source: what is exported.

    Raises:
        ConfigError: the network cannot be exported so, or a package is not installed.
    """
    predictor, layers = source.parts.predictor, list(source.parts.layers)
    path = folder / FILES[kind]
    path.parent.mkdir(parents=True, exist_ok=True)
    outputs: list[str] = []
    multiple = None
    if kind in GRAPHS:
        program, multiple = program_of(predictor, layers)
        outputs = outputs_of(layers)
        write_program(path, program) if kind == "program" else _installed(write_onnx)(path, program, outputs)
    else:
        _write_weights(path, predictor.network.state_dict())
    return NetworkRecord(
        file=FILES[kind],
        builds=None if kind in GRAPHS else source.network,
        channels=input_channels(predictor.network),
        multiple=multiple,
        outputs=outputs,
        layers=layers,
        logits=predictor.outputs.names,
    )


def write_state(folder: Path, kind: Kind, source: Source, network: NetworkRecord) -> Record:
    """Write the state of a folder.

    Args:
        folder: the folder.
        kind: of it.
        source: what is exported.
        network: of `write_network`.

    Returns:
        The record, which names no files yet.

    Raises:
        ConfigError: the detector is of the user's own module.
    """
    parts = source.parts
    arrays: Arrays = {}
    state = split(_state(parts, network), arrays)
    write_arrays(folder / STATE, arrays)
    windows = parts.predictor
    return Record(
        format=FORMAT,
        kind=kind,
        name=source.name,
        checkpoint=source.checkpoint,
        versions=source.versions,
        files={},
        network=network,
        windows=WindowsRecord(windows.patch_size, windows.overlap, windows.window_batch),  # type: ignore[arg-type]
        tasks={name: TaskRecord.of(task) for name, task in parts.tasks.items()},
        verdict=_verdict(parts),
        state=state,
    )


def write_record(folder: Path, record: Record) -> Record:
    """Write the record of a folder, which names all files that are there.

    Args:
        folder: the folder.
        record: of `write_state`.

    Returns:
        The record with the files.
    """
    write_text(folder / SCHEMA, json.dumps(record_schema(), indent=1) + "\n")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    named = replace(record, files={path.relative_to(folder).as_posix(): file_digest(path) for path in files})
    named = typed(Record, named.content)  # numbers of the kind that reading gives, on which the digest depends
    write_text(folder / RECORD, named.text)
    return named


def check_written(folder: Path, source: Source) -> float:
    """Read a folder back, and check that its network gives what that of the run gives.

    Returns:
        The largest difference, as a share of the largest value.

    Raises:
        RunError: it does not.
    """
    parts, _ = load_exported(folder, "cpu", trust=True)
    return check_equal(source.parts.predictor, parts.predictor, source.parts.layers)


@contextmanager
def placed(output: Path, overwrite: bool) -> Iterator[Path]:
    """A folder that becomes `output` if the block ends without an error.

    Args:
        output: where it goes; what lies there is replaced as a whole.
        overwrite: replace an exported folder, if it holds nothing else.

    Raises:
        RunError: there is something already, which is not to be replaced.
    """
    place = resolved(output)
    _check_free(place, output, overwrite)
    beside = place.with_name(f".{secrets.token_hex(4)}.{place.name}")  # several machines may write there
    beside.mkdir(parents=True)
    try:
        yield beside
        _check_free(place, output, overwrite)  # an export takes its time, in which anyone may write there
        if place.exists():
            shutil.rmtree(place)
        beside.replace(place)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _check_free(place: Path, output: Path, overwrite: bool) -> None:
    if not place.exists() or (place.is_dir() and not any(place.iterdir())):
        return
    if not is_exported(place):
        raise RunError(f"{output} is there already", fix="choose another")
    if not overwrite:
        raise RunError(f"{output} is there already", fix="add --overwrite, or choose another")
    try:
        own = {RECORD, *read_record(place).files}
    except RunError:
        raise RunError(f"{output} holds a damaged export", fix="move it, or choose another --output") from None
    for path in sorted(place.rglob("*")):
        name = path.relative_to(place).as_posix()
        if name not in own and path.parent.name != "__pycache__" and (path.is_symlink() or not path.is_dir()):
            raise RunError(f"{output} holds {name}, which no export wrote", fix="move it, or choose another --output")


def _state(parts: Parts, network: NetworkRecord) -> dict[str, Any]:
    heads = parts.predictor.heads
    return {
        **({} if parts.ood_detector is None else {OOD: parts.ood_detector.state_dict()}),
        **({} if parts.mask_rule is None else {MASKS: parts.mask_rule.state_dict()}),
        **({} if parts.scalings is None else {SCALING: parts.scalings.state_dict()}),
        **({} if heads is None or network.builds is None else {HEADS: heads.last.state_dict(prefix="last.")}),
    }


def _verdict(parts: Parts) -> VerdictRecord:
    options = options_of(parts.detector)
    if options_of(detector_of(options)) != options:
        raise ConfigError("the OOD detector cannot be described by its options", fix="use one of medmtl.ood.detectors")
    rule = None if parts.ood_detector is None else parts.ood_detector.rule
    masks = parts.mask_rule
    return VerdictRecord(
        alpha=parts.alpha,
        detector=options,
        name=None if parts.ood_detector is None else parts.ood_detector.detector.name,
        threshold=rule.threshold if rule is not None and rule.decides else None,
        mask_threshold=masks.threshold if masks is not None and masks.decides else None,
        promise=None if rule is None or not rule.decides else rule.stated,
    )


def _write_weights(path: Path, state: Mapping[str, Tensor]) -> None:
    weights = {name: value.detach().cpu().clone().contiguous() for name, value in state.items()}
    if path.suffix == ".pt":
        torch.save(weights, path)
        return

    def write() -> None:
        from safetensors.torch import save

        path.write_bytes(save(weights))

    _installed(write)()


def _installed(write: Any) -> Any:
    """A function that says in one line which package it lacks."""

    def checked(*arguments: Any) -> None:
        try:
            write(*arguments)
        except ImportError as error:
            raise ConfigError(f"{error.name or error} is not installed", fix=how_to_install("export")) from None

    return checked
