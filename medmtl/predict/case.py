"""Predict, draw and write one image; its JSON record is written last."""

import json
import math
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from medmtl.errors import RunError
from medmtl.files import resolved, write_text, written_whole
from medmtl.io.input import printable
from medmtl.io.nifti import DESCRIPTION_BYTES
from medmtl.io.reader import Scan
from medmtl.io.writer import SUFFIXES, write_map, write_mask
from medmtl.predict.gate import withholds
from medmtl.predict.model import Model
from medmtl.predict.options import Options
from medmtl.predict.prediction import Prediction
from medmtl.predict.records import read_record, record_path, write_record
from medmtl.report.predict.picture import draw_case, slices_of
from medmtl.results.prediction import PredictedCase
from medmtl.version import __version__


def predict_case(
    model: Model, scan: Scan, request: Mapping[str, Any], options: Options, reading: float
) -> PredictedCase:
    """Predict an image and write its outputs. Outputs of an earlier command for this image are removed first.

    Args:
        model: the trained run.
        scan: the image.
        request: input files and options, see `request_of`.
        options: what to write, and where.
        reading: seconds spent on reading it.

    Raises:
        DataError: the image cannot be predicted.
        RunError: the folder cannot be written to.
    """
    modality = request["modality"] or scan.modality
    prediction = model.predict_scan(scan, task=request["task"], modality=modality)
    start = time.perf_counter()
    folder = options.output
    try:
        forget(folder, scan.name)
        with _staged(folder, scan.name) as stage:
            files = _write(stage, scan, prediction, options)
        case = PredictedCase(
            case=scan.name,
            input=printable(scan.input.path),
            mask=files.get("mask"),
            in_distribution=prediction.in_distribution,
            p_value=prediction.p_value,
            alpha=prediction.alpha,
            nearest_task=prediction.nearest_task,
            ood_score=prediction.ood_score,
            scores={name: _number(score) for name, score in prediction.scores.items()},
            task=prediction.task,
            preprocessing=prediction.preprocessing,
            mask_reliable=prediction.mask_reliable,
            mask_p_value=prediction.mask_p_value,
            mask_disagreement=prediction.mask_disagreement,
            reasons=list(prediction.reasons),
            mask_descriptors=[asdict(each) for each in prediction.compared],
            nearest_image=prediction.nearest_image,
            volume_ml=prediction.volume_ml,
            labels=prediction.classes,
            volumes_ml=prediction.volumes_ml,
            expected_volume_ml=prediction.expected_volume_ml,
            model={"name": model.name, "digest": request["digest"], "medmtl": __version__},
            warnings=list(prediction.warnings),
            seconds=_rounded({"reading": reading, **prediction.seconds, "writing": time.perf_counter() - start}),
            files=files,
            request=request,
            chosen=prediction.chosen,
            ood_threshold=None if prediction.ood_threshold is None else _number(prediction.ood_threshold),
            calibration_patients=list(prediction.calibration_patients),
        )
        write_record(folder, case)
    except OSError as error:
        raise RunError(f"{folder} cannot be written to ({error.strerror or error})", fix="make room there") from None
    return case


def forget(folder: Path, name: str) -> None:
    """Remove what an earlier command wrote of an image, the record first, so that no record lies beside a wrong mask.

    Args:
        folder: the output folder.
        name: of the image.
    """
    record = read_record(folder, name)
    record_path(folder, name).unlink(missing_ok=True)
    home = resolved(folder)
    for file in record.files.values() if record is not None else ():
        if resolved(folder / file).is_relative_to(home):
            (folder / file).unlink(missing_ok=True)


def _write(stage: Path, scan: Scan, prediction: Prediction, options: Options) -> dict[str, str]:
    """Write mask, maps and picture; returns kind -> file name."""
    files = {}
    held_back = withholds(prediction.in_distribution, options.on_ood)
    if not held_back:
        file, *others = write_mask(stage, scan, prediction.mask, prediction.segments, options.suffix)
        files["mask"] = file.name
        if others:
            files["dicom_seg"] = others[0].name
        if options.probability:
            several = len(prediction.classes) > 1
            written = (
                _write_classes(stage, scan, prediction)
                if several
                else write_map(stage, scan, prediction.probability, "probability")
            )
            files["probability"] = written.name
        if options.entropy:
            files["entropy"] = write_map(stage, scan, prediction.entropy(), "entropy").name
    if options.report:
        files |= {"picture": f"figures/{scan.name}.png", "slices": f"figures/{scan.name}.slices.json"}
        mask, probability = (None, None) if held_back else (prediction.mask, prediction.probability)
        with written_whole(stage / files["picture"]) as beside:
            beside.write_bytes(draw_case(scan.name, scan.image, mask, prediction.segments))
        write_text(
            stage / files["slices"],
            json.dumps(slices_of(scan.image, mask, probability, *options.slider or ()).to_dict()),
        )
    return files


def _write_classes(stage: Path, scan: Scan, prediction: Prediction) -> Path:
    """Write a probability map with a volume a class; what is in memory does not grow with their number.

    A NIfTI header has room for 79 bytes of names: where they do not fit it points to the record, which has them all.
    """
    names = list(prediction.classes)
    if scan.input.kind not in SUFFIXES and len("; ".join(names).encode()) > DESCRIPTION_BYTES:
        names = ["volumes in the order of `labels` in the JSON record"]
    raw = stage / "classes.raw"
    with raw.open("wb") as file:
        for volume in prediction.each_class():
            volume.astype(np.float32, copy=False).tofile(file)
    shape = (len(prediction.classes), *prediction.mask.shape)
    path = write_map(stage, scan, np.memmap(raw, np.float32, "r", shape=shape), "probability", names)
    raw.unlink()
    return path


@contextmanager
def _staged(folder: Path, name: str) -> Iterator[Path]:
    """A temporary folder whose files are moved to `folder` if the block ends without an error."""
    stage = folder / f".{name}.partial"
    shutil.rmtree(stage, ignore_errors=True)  # left by a command that was killed
    stage.mkdir(parents=True)
    try:
        yield stage
        for path in [path for path in stage.rglob("*") if path.is_file()]:
            final = folder / path.relative_to(stage)
            final.parent.mkdir(exist_ok=True)
            path.replace(final)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {step: round(taken, 3) for step, taken in seconds.items()}
