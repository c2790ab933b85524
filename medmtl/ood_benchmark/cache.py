"""Cache: evidence and Dice of every image, in files without pickle, so that nothing is computed twice."""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medmtl.data.case import LabelFile
from medmtl.files import written_whole
from medmtl.ood.evidence.evidence import Evidence, LayerEvidence, View
from medmtl.ood.shifts import Shift
from medmtl.ood_benchmark.images import Image
from medmtl.typed import typed
from medmtl.version import __version__

FORMAT = 5  # changes when evidence means something else
LIBRARIES = ("torch", "monai", "numpy", "scipy")  # that read, prepare and shift images, and run the network


@dataclass(frozen=True)
class Observation:
    """The result of one forward pass over an image.

    Attributes:
        evidence: for the detectors.
        dice: against its label, NaN for a label without foreground; None without a label.
    """

    evidence: Evidence
    dice: float | None


class Cache:
    """Observations by key, one `.npz` file each.

    Args:
        folder: where the files are.
        facts: all that determines an observation beside the image: weights, layers, windows, seed.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        self.folder = folder
        self._facts = {"format": FORMAT, "medmtl": __version__, **{name: version(name) for name in LIBRARIES}, **facts}
        self._files: dict[Path, str] = {}
        self._shifts: dict[str, str] = {}

    def key(self, image: Image) -> str:
        """SHA-256 of all that determines the observation of an image, as hexadecimal digits."""
        case = image.case
        facts = {
            **self._facts,
            "image": ":".join(self._digest(path) for path in case.image_files),
            "label": None if image.own is None or not case.labels else ":".join(map(self._label, case.labels)),
            "case": [image.task or image.condition, case.name, case.patient, *case.channels],
            "preprocessings": [repr(preprocessing) for preprocessing in image.preprocessings],
            "own": repr(image.own),
            "organ": [*image.organ, *([] if image.ignore is None else [f"unknown {image.ignore}"])],
            "shift": None if image.shift is None else [image.shift.name, self._definition(image.shift), image.severity],
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def holds(self, key: str) -> bool:
        """Whether the observation is there."""
        return self._path(key).is_file()

    def read(self, key: str) -> Observation | None:
        """The observation; None if it is not there, or its file is damaged."""
        try:
            with np.load(self._path(key), allow_pickle=False) as arrays:
                return unpacked(arrays)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, OSError, EOFError, zlib.error, zipfile.BadZipFile):
            self._path(key).unlink(missing_ok=True)  # to be computed again
            return None

    def write(self, key: str, observation: Observation) -> None:
        """Keep an observation."""
        with written_whole(self._path(key)) as beside:
            np.savez(beside, **_packed(observation))

    def _path(self, key: str) -> Path:
        return self.folder / f"{key[:32]}.npz"

    def _definition(self, shift: Shift) -> str:
        if shift.name not in self._shifts:
            self._shifts[shift.name] = shift.digest()
        return self._shifts[shift.name]

    def _label(self, label: LabelFile) -> str:
        return self._digest(label.path) + ("" if label.value is None else f"={label.value}")

    def _digest(self, path: Path) -> str:
        if path not in self._files:
            with path.open("rb") as stream:
                self._files[path] = hashlib.file_digest(stream, "sha256").hexdigest()
        return self._files[path]


@dataclass(frozen=True)
class _View:
    """A view, without its arrays."""

    preprocessing: str
    outputs: dict[str, float]
    shape: dict[str, float] | None
    voxels: dict[str, float]


@dataclass(frozen=True)
class _Facts:
    """An observation, without its arrays."""

    dataset: str
    case: str
    patient: str
    dice: float | None
    views: list[_View]


def _packed(observation: Observation) -> dict[str, Any]:
    evidence = observation.evidence
    views = []
    arrays = {} if evidence.thumbnail is None else {"thumbnail": evidence.thumbnail.numpy()}
    for number, view in enumerate(evidence.views):
        arrays[f"{number}.histogram"] = view.histogram.numpy()
        for layer, kept in view.layers.items():
            arrays[f"{number}.{layer}.gram"] = kept.gram.numpy()
            arrays[f"{number}.{layer}.mean"] = kept.mean.numpy()
            if kept.windows is not None:
                arrays[f"{number}.{layer}.windows"] = kept.windows.numpy()
        voxels = {layer: kept.voxels for layer, kept in view.layers.items()}
        views.append(
            {
                "preprocessing": view.preprocessing,
                "outputs": dict(view.outputs),
                "shape": view.shape,
                "voxels": voxels,
            }
        )
    facts = {
        "dataset": evidence.dataset,
        "case": evidence.case,
        "patient": evidence.patient,
        "dice": observation.dice,
        "views": views,
    }
    return {**arrays, "facts": np.array(json.dumps(facts))}


def unpacked(arrays: Mapping[str, Any]) -> Observation:
    """The observation of which the arrays are kept.

    Raises:
        KeyError: an array is missing.
        ValueError: the facts are damaged.
    """
    facts = typed(_Facts, json.loads(str(arrays["facts"])), "the facts")
    views = []
    for number, view in enumerate(facts.views):
        layers = {
            layer: LayerEvidence(
                gram=torch.from_numpy(arrays[f"{number}.{layer}.gram"]),
                mean=torch.from_numpy(arrays[f"{number}.{layer}.mean"]),
                voxels=voxels,
                windows=torch.from_numpy(arrays[name]) if (name := f"{number}.{layer}.windows") in arrays else None,
            )
            for layer, voxels in view.voxels.items()
        }
        histogram = torch.from_numpy(arrays[f"{number}.histogram"])
        views.append(View(view.preprocessing, layers, view.outputs, histogram, view.shape))
    thumbnail = torch.from_numpy(arrays["thumbnail"]) if "thumbnail" in arrays else None
    evidence = Evidence(facts.dataset, facts.case, facts.patient, tuple(views), thumbnail)
    return Observation(evidence, facts.dice)
