"""Records of predictions in the output folder: a JSON file per image, and `summary.csv`; which images are finished."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medmtl.errors import DataError
from medmtl.export.record import file_digest
from medmtl.export.record import read_record as read_record_of
from medmtl.exported import is_exported
from medmtl.files import TextError, read_json, resolved, write_table, write_text
from medmtl.io.input import Input, stem
from medmtl.predict.gate import withholds
from medmtl.predict.options import Options
from medmtl.report.orientation import convention
from medmtl.results.prediction import FailedCase, PredictedCase, worst_first

COLUMNS = (
    *(
        "case",
        "input",
        "verdict",
        "in_distribution",
        "p_value",
        "alpha",
        "nearest_task",
        "ood_score",
        "task",
        "preprocessing",
    ),
    *("mask_reliable", "mask_p_value", "mask_disagreement", "reasons", "nearest_image"),
    *(
        "volume_ml",
        "volumes_ml",
        "expected_volume_ml",
        "mask",
        "model",
        "digest",
        "medmtl",
        "seconds",
        "warnings",
        "error",
    ),
)

CONVENTION = "convention"  # in which an image was drawn, if it was


def record_path(folder: Path, case: str) -> Path:
    """Path of the JSON record of an image."""
    return folder / f"{case}.json"


def digest_of(source: Path) -> str:
    """SHA-256 of a checkpoint or of the record of an exported folder: weights, scaling and OOD detector."""
    return read_record_of(source).digest if is_exported(source) else file_digest(source)


def request_of(source: Input, options: Options, digest: str) -> dict[str, Any]:
    """What determines mask, verdict and picture of an image: its files as they are now, the network and the options.

    Args:
        source: the image.
        options: of the command.
        digest: of the checkpoint, see `digest_of`.

    Returns:
        A dict for JSON.
    """
    state = _state(source.path)
    if source.channels:
        state["channels"] = {str(number): _state(part.path) for number, part in source.channels.items()}
        state["bytes"] = sum(part["bytes"] for part in state["channels"].values())
    return {
        **state,
        "series": source.series,
        "volume": source.volume,
        "task": options.task or source.task,
        "modality": options.modality or source.modality,
        "digest": digest,
        "alpha": options.alpha,
        "precision": options.precision,
        "fast": options.fast,
        **({CONVENTION: convention()} if options.report else {}),
    }


def read_record(folder: Path, case: str) -> PredictedCase | None:
    """The record of an earlier command for an image; None if there is none, or it cannot be read or leads elsewhere."""
    try:
        record = PredictedCase.from_dict(read_json(record_path(folder, case)))
    except (OSError, ValueError, TextError):
        return None
    elsewhere = any(Path(file).is_absolute() or ".." in Path(file).parts for file in record.files.values())
    return None if elsewhere else record


def finished(record: PredictedCase, request: Mapping[str, Any], options: Options) -> bool:
    """Whether an earlier command wrote all outputs that this one is to write of an image."""
    drawn = options.report
    earlier = {key: value for key, value in record.request.items() if drawn or key != CONVENTION}
    if options.overwrite or earlier != request:
        return False
    held_back = withholds(record.in_distribution, options.on_ood)
    if held_back and record.mask is not None:
        return False
    needed = {
        "mask": not held_back,
        "probability": options.probability and not held_back,
        "entropy": options.entropy and not held_back,
        "picture": drawn,
        "slices": drawn,
    }
    return all(
        kind in record.files and (options.output / record.files[kind]).is_file()
        for kind, is_needed in needed.items()
        if is_needed
    ) and (held_back or stem(Path(record.files["mask"])) == f"{record.case}{options.suffix}")


def check_owner(record: PredictedCase, request: Mapping[str, Any], folder: Path) -> None:
    """Refuse to replace the record of another image.

    Raises:
        DataError: the record of this name is about another image.
    """
    if record.request.get("path") != request["path"]:
        raise DataError(
            f"{record_path(folder, record.case)} is about another image ({record.input})",
            fix="choose another --output, or add --overwrite",
        )


def write_record(folder: Path, case: PredictedCase) -> None:
    """Write the JSON record of an image; call it after all its other files are written."""
    write_text(record_path(folder, case.case), json.dumps(case.to_dict(), indent=1, allow_nan=False) + "\n")


def write_summary(path: Path, cases: Sequence[PredictedCase], failed: Sequence[FailedCase]) -> None:
    """Write `summary.csv`: a row per image, failed ones first, then by decreasing OOD; empty = no value."""
    rows: list[dict[str, Any]] = [{"case": each.case, "input": each.input, "error": each.error} for each in failed]
    for case in worst_first(cases):
        row = {name: getattr(case, name, None) for name in COLUMNS}
        row |= {"model": case.model.get("name")} | {key: case.model.get(key) for key in ("digest", "medmtl")}
        row |= {"seconds": round(sum(case.seconds.values()), 3), "warnings": "; ".join(case.warnings)}
        row["reasons"] = "; ".join(case.reasons)
        row["volumes_ml"] = "; ".join(f"{name}={volume:.3f}" for name, volume in case.volumes_ml.items())
        rows.append(row)
    write_table(path, COLUMNS, rows)


def _state(path: Path) -> dict[str, Any]:
    """Size and modification time of a file, or of the files of a series; 0 where it cannot be read (reported later)."""
    try:
        files = [file for file in path.iterdir() if file.is_file()] if path.is_dir() else [path]
        states = [file.stat() for file in files]
    except (OSError, ValueError):
        states = []
    return {
        "path": str(resolved(path)),
        "bytes": sum(state.st_size for state in states),
        "modified": max((state.st_mtime_ns for state in states), default=0),
    }
