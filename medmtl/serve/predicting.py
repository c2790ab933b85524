"""Predicting: an upload becomes what `medmtl predict` writes of it, under names of the server's own."""

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

from medmtl.errors import ConfigError, DataError, MedMTLError
from medmtl.io.dicom.files import is_dicom
from medmtl.io.input import ENDINGS, MODALITIES, Input, stem
from medmtl.io.inputs import find_inputs, safe_name
from medmtl.predict import options as predicting
from medmtl.predict.case import predict_case
from medmtl.predict.model import Model
from medmtl.predict.records import request_of
from medmtl.predict.run import failure, timed_read
from medmtl.results.prediction import PredictedCase
from medmtl.serve.answers import RequestError
from medmtl.serve.archive import is_zip, suffix_of, unpack
from medmtl.serve.options import Options
from medmtl.serve.uploads import Upload

logger = logging.getLogger(__name__)

NAME = "scan"  # of an image on disk, whatever the client calls it
SLIDER = (256, 64)  # pixels of a side, and slices: one image has a page of its own


@dataclass(frozen=True)
class Result:
    """A predicted image.

    Attributes:
        case: its record, in which files have the names by which they are asked for.
        files: such a name -> the file.
        slices: of the slider, see `medmtl.report.stack`.
    """

    case: PredictedCase
    files: Mapping[str, Path]
    slices: Path


@dataclass(frozen=True)
class Predictor:
    """Predicts uploads.

    Attributes:
        model: the network; not to be used by several threads at once.
        digest: of what it was read from.
        options: of the server.
    """

    model: Model
    digest: str
    options: Options

    def check(self, task: str | None, modality: str | None) -> None:
        """Check what a client says of a scan before it is read.

        Raises:
            RequestError: there is no such task or modality.
        """
        unprocessable = HTTPStatus.UNPROCESSABLE_ENTITY
        if task is not None and task not in self.model.tasks:
            known = ", ".join(self.model.tasks)
            raise RequestError(unprocessable, f"task {task[:80]} is none of this network", f"use one of: {known}")
        if modality is not None and modality not in MODALITIES:
            raise RequestError(unprocessable, f"modality {modality[:80]}", f"use one of: {', '.join(MODALITIES)}")

    def predict(self, upload: Upload, folder: Path, task: str | None, modality: str | None) -> Result:
        """Predict an upload.

        Args:
            upload: a file, or a zipped series.
            folder: of this request alone, for what is written.
            task: whose organ to segment; None: the nearest one.
            modality: CT, MR, PET or other; None: as the file says.

        Raises:
            RequestError: it cannot be predicted, and why, in the words of `medmtl predict`.
        """
        scan = folder / NAME
        scan.mkdir()
        shown = {str(scan): upload.label, str(folder): "the temporary folder of the server"}
        source = Input(NAME, scan, "dicom")
        try:
            found, names = self._found(upload, scan)
            shown = {**{str(scan / name): f"{upload.label}/{inside}" for name, inside in names.items()}, **shown}
            if not names:
                shown = {str(found): upload.label, **shown}
            source = self._only(found)
            options = predicting.Options(
                run=self.options.run,
                checkpoint=None,
                input=found,
                output=folder,
                task=task,
                modality=modality,
                report=True,
                fast=self.options.fast,
                trust=self.options.trust,
                slider=SLIDER,
            )
            request = request_of(source, options, self.digest)
            read, seconds = timed_read(self.model, source, request)
            case = predict_case(self.model, read, request, options, seconds)
        except (RequestError, OSError):
            raise
        except Exception as error:
            raise RequestError(_status(error), _renamed(failure(source, error), shown)) from None
        finally:
            shutil.rmtree(scan, ignore_errors=True)
        return _result(case, folder, upload.label, shown)

    def _found(self, upload: Upload, scan: Path) -> tuple[Path, Mapping[str, str]]:
        """The scan under a name that says what it is; of a zip the folder, and the names within."""
        suffix = suffix_of(upload.label)
        if not suffix and is_zip(upload.path):
            names = unpack(upload.path, upload.label, scan, self.options.unpacked_bytes)
            upload.path.unlink()
            return scan, names
        if not suffix and not is_dicom(upload.path):
            how = f"use {', '.join(ENDINGS)}, or a zip of a DICOM series"
            raise RequestError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"{upload.label} is not an image that can be read", how
            )
        return upload.path.rename(scan / f"{NAME}{suffix}"), {}

    def _only(self, found: Path) -> Input:
        """The only image there, with a name of ours.

        Raises:
            DataError: there is none, or more than one.
        """
        inputs = find_inputs(found, 0, self.model.stacks)
        if len(inputs) > 1:
            raise DataError(f"{found} holds {len(inputs)} images", fix="send one at a time")
        return replace(inputs[0], name=NAME)


def _status(error: Exception) -> HTTPStatus:
    """The status of what `failure` says."""
    if isinstance(error, DataError | ConfigError):
        return HTTPStatus.UNPROCESSABLE_ENTITY
    if isinstance(error, MemoryError):
        return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    if not isinstance(error, MedMTLError):
        logger.error("a prediction failed", exc_info=error)
    return HTTPStatus.INTERNAL_SERVER_ERROR


def _renamed(text: str, shown: Mapping[str, str]) -> str:
    """A message in which files have the names that the client gave them: nobody is told where the server's lie."""
    for path, label in shown.items():
        text = text.replace(path, label)
    return text


def _result(case: PredictedCase, folder: Path, label: str, shown: Mapping[str, str]) -> Result:
    """A record and its files, by names that lead nowhere."""
    paths = {kind: folder / name for kind, name in case.files.items()}
    names = {kind: f"{kind}{suffix_of(path.name) or path.suffix}" for kind, path in paths.items() if kind != "slices"}
    record = replace(
        case,
        case=safe_name(stem(Path(label.removesuffix(".zip")))),
        input=label,
        mask=names.get("mask"),
        files=names,
        warnings=[_renamed(each, shown) for each in case.warnings],
        request=_without_path(case.request, label),
    )
    return Result(record, {name: paths[kind] for kind, name in names.items()}, paths["slices"])


def _without_path(request: Mapping[str, Any], label: str) -> dict[str, Any]:
    return {**request, "path": label}
