"""Model: a trained run, or an exported folder, as an object that segments scans and gives an OOD verdict for each."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from medmtl.errors import ConfigError, DataError
from medmtl.export.load import load_exported
from medmtl.exported import is_exported
from medmtl.io.inputs import find_inputs, input_of
from medmtl.io.reader import Scan, read, scan_of
from medmtl.models.inference import TYPES, Inference, Precision
from medmtl.models.parts import Parts
from medmtl.predict.prediction import Prediction
from medmtl.runs.folder import RunFolder
from medmtl.training.trained import load_trained


class Model(Inference):
    """A trained run, or an exported folder, that segments scans.

    Args:
        parts: network, tasks, scaling and OOD detector.
        name: of the checkpoint.
        precision: of the network's arithmetic; the OOD threshold was estimated in `32`, see `verdict_warnings`.
        window_batch: sliding windows per forward pass; as in the training if None.
        fast: check masks by their volume alone, without an additional pass over the mirrored image.
    """

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: str = "auto",
        precision: Precision = "32",
        window_batch: int | None = None,
        alpha: float | None = None,
        trust: bool = False,
        fast: bool = False,
    ) -> "Model":
        """Load a run.

        Args:
            path: run folder, checkpoint, or exported folder.
            device: as torch names it, or `auto`: a GPU if there is one.
            precision: `32`, or mixed with `16` or `bf16`.
            window_batch: sliding windows per forward pass; as in the training if None.
            alpha: share of in-distribution images that may be rejected; as in the training if None.
            trust: import and build any class that the checkpoint names, which runs its code; else only networks of
                `monai.networks` and `torch.nn`, and classes of medmtl.
            fast: check masks by their volume alone, without an additional pass over the mirrored image.

        Raises:
            RunError: there is no such run, or its checkpoint cannot be used.
            ConfigError: there is no such device, or an option is outside its domain.
        """
        if precision != "32" and precision not in TYPES:
            raise ConfigError(f"precision {precision!r}", fix=f"use one of 32, {', '.join(TYPES)}")
        try:
            parts, name = _read(Path(path), device, trust)
        except torch.OutOfMemoryError:
            raise ConfigError(f"the network does not fit into the memory of device {device!r}", fix="use cpu") from None
        return cls(parts if alpha is None else parts.with_alpha(alpha), name, precision, window_batch, fast)

    def predict(
        self,
        image: str | Path | Sequence[str | Path] | np.ndarray | torch.Tensor,
        affine: np.ndarray | None = None,
        *,
        task: str | None = None,
        modality: str | None = None,
    ) -> Prediction:
        """Segment one image.

        Args:
            image: a file or the folder of a DICOM series, or voxels `(H, W, D)` or `(1, H, W, D)`. For a network that
                stacks channels, which are numbered as in its training: a 4-D file, a list of files or
                series, or voxels `(C, H, W, D)`.
            affine: of an array without one, `(4, 4)` from voxel indices to mm, right-anterior-superior.
            task: whose organ to segment; None: the nearest task.
            modality: CT, MR, PET or other; None: as the file says, if it says one.

        Raises:
            DataError: the image cannot be used; one line says why.
            ConfigError: there is no such task or modality.
        """
        channels = self.channels(task)
        if isinstance(image, np.ndarray | torch.Tensor):
            return self.predict_scan(scan_of(image, affine, channels), task, modality)
        if not isinstance(image, str | Path):
            if not channels:
                raise DataError(f"{len(image)} files are named, and the network takes one channel", fix="name one")
            return self.predict_scan(read(input_of([Path(each) for each in image]), channels), task, modality)
        found = find_inputs(Path(image), stack=self.stacks)
        if len(found) > 1:
            raise DataError(f"{image} holds {len(found)} images", fix="name one, or use `medmtl predict`")
        return self.predict_scan(read(found[0], channels), task, modality)

    def predict_scan(self, scan: Scan, task: str | None = None, modality: str | None = None) -> Prediction:
        """Segment one scan; see `predict`."""
        task, modality = task or scan.input.task, modality or scan.modality
        found = self.infer(scan.image, scan.name, task, modality)
        affine = scan.image.affine.numpy()
        said = self.said(found, affine)
        said["warnings"] = tuple(dict.fromkeys([*scan.warnings, *said["warnings"]]))
        return Prediction(
            mask=found.mask,
            probability=found.probability.float().numpy(),
            affine=affine,
            seconds=found.seconds,
            scan=scan,
            compared=() if found.verdict is None else found.verdict.compared,
            output=found.output,
            **said,
        )


def _read(path: Path, device: str, trust: bool) -> tuple[Parts, str]:
    """What segments images, and the name of what holds it."""
    if is_exported(path):
        parts, record = load_exported(path, device, trust)
        return parts, record.name
    checkpoint = RunFolder(path).checkpoint() if path.is_dir() else path
    return load_trained(checkpoint, device, trust).parts, checkpoint.name
