"""Digital phantoms, the embedded default data: five organ tasks and a set of other things, as MSD folders.

The same torso or head is shown in CT, T1, T2 or PET contrast, and which organ is of interest depends on that context:
the liver of a torso in CT, its kidneys in T2. A network with one foreground output must recognise the context.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, ornt_transform
from numpy.typing import NDArray

from medmtl.data.phantoms.anatomy import FOREARM, HAND, HEAD, LEGS, TORSO, Anatomy, Part, Triple, draw
from medmtl.data.phantoms.scanner import NONSENSE, Contrast, nonsense, scan
from medmtl.errors import DataError
from medmtl.files import cache_folder, naming, write_text
from medmtl.progress import watched


@dataclass(frozen=True)
class _Scan:
    """What is scanned and how: a body, its field of view in mm, contrast, voxel size in mm and stored axes."""

    body: tuple[Part, ...]
    field: Triple
    contrast: Contrast
    spacing: Triple = (3.5, 3.5, 3.5)
    axes: str = "RAS"


_TORSO_FIELD, _HEAD_FIELD = (196.0, 154.0, 192.0), (148.0, 176.0, 148.0)

# Task -> its scan and the organs that its labels 1, 2, ... name.
_TASKS: dict[str, tuple[_Scan, tuple[str, ...]]] = {
    "LiverCT": (_Scan(TORSO, _TORSO_FIELD, "CT", (3.5, 3.5, 4.0), "LPS"), ("liver",)),
    "KidneyT2": (_Scan(TORSO, _TORSO_FIELD, "T2", (3.2, 4.0, 3.2)), ("right kidney", "left kidney")),
    "HeartPET": (_Scan(TORSO, _TORSO_FIELD, "PET", (4.0, 4.0, 4.0), "LAS"), ("heart",)),
    "VentricleT1": (_Scan(HEAD, _HEAD_FIELD, "T1", (2.75, 2.75, 2.75)), ("ventricles",)),
    "CerebellumT2": (_Scan(HEAD, _HEAD_FIELD, "T2", (3.0, 2.6, 2.6), "PSR"), ("cerebellum",)),
}

_OTHER_BODIES = {
    "forearm_ct": _Scan(FOREARM, (140.0, 140.0, 168.0), "CT"),
    "forearm_t1": _Scan(FOREARM, (140.0, 140.0, 168.0), "T1"),
    "hand_ct": _Scan(HAND, (154.0, 154.0, 196.0), "CT"),
    "hand_t2": _Scan(HAND, (154.0, 154.0, 196.0), "T2"),
    "legs_pet": _Scan(LEGS, (196.0, 154.0, 168.0), "PET"),
    "legs_t2": _Scan(LEGS, (196.0, 154.0, 168.0), "T2"),
}

PHANTOM_TASKS: tuple[str, ...] = tuple(_TASKS)
OTHER_PHANTOM = "OtherPhantom"

_LABELLED, _UNLABELLED = 20, 2


def write_phantoms(out: Path, seed: int = 0, cases: int = _LABELLED) -> None:
    """Write all six phantom data sets as Medical Segmentation Decathlon folders.

    Args:
        out: folder to write into; each data set becomes a folder `<out>/<name>`, written whole.
        seed: the same seed gives the same voxels.
        cases: labelled cases a task.

    Raises:
        DataError: one of the folders is there already.
    """
    names = (*PHANTOM_TASKS, OTHER_PHANTOM)
    for name in names:
        if (out / name).exists():
            raise DataError(f"{out / name} exists", fix="remove it or choose another folder")
    for name in names:
        _write_data_set(out, name, seed, cases)


def phantom_root(name: str) -> Path:
    """Folder of one phantom data set, made with seed 0 in the cache on first use.

    The cache is `phantoms-v1` in the folder that `cache_folder` names.

    Args:
        name: one of `PHANTOM_TASKS` or `OTHER_PHANTOM`.

    Returns:
        The folder, which holds `dataset.json`.

    Raises:
        DataError: there is no such phantom.
        OSError: the cache cannot be written to; names it.
    """
    if name not in (*PHANTOM_TASKS, OTHER_PHANTOM):
        raise DataError(f"no phantom is called {name!r}", fix=f"use {', '.join((*PHANTOM_TASKS, OTHER_PHANTOM))}")
    cache = cache_folder() / "phantoms-v1"
    if not (cache / name).is_dir():
        try:
            _write_data_set(cache, name, seed=0, cases=_LABELLED)
        except OSError as error:
            # Another process that made the same folder meanwhile has won; its result is as good.
            if not (cache / name).is_dir():
                what = f"{error.strerror or error} (MEDMTL_CACHE names another folder for phantoms)"
                raise OSError(error.errno, what, str(cache)) from None
    return cache / name


def _write_data_set(out: Path, name: str, seed: int, cases: int) -> None:
    """Write one MSD folder whole: beside its place, then renamed."""
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out, prefix=f".{name}.") as beside, naming(out / name):
        folder = Path(beside) / name
        if name == OTHER_PHANTOM:
            _write_other(folder, seed)
        else:
            _write_task(folder, seed, cases)
        folder.replace(out / name)


def _write_task(folder: Path, seed: int, cases: int) -> None:
    plan, organs = _TASKS[folder.name]
    training, test = [], []
    count = cases + _UNLABELLED
    for number in watched(range(count), f"making phantom {folder.name}", count, "images"):
        rng = np.random.default_rng([seed, PHANTOM_TASKS.index(folder.name), number])
        anatomy, image = _acquire(plan, rng)
        case = f"phantom_{folder.name}_{number + 1:03d}.nii.gz"
        if number >= cases:
            _save(folder / "imagesTs" / case, image, plan)
            test.append(f"./imagesTs/{case}")
            continue
        label = np.zeros(image.shape, np.uint8)
        for value, organ in enumerate(organs, start=1):
            label[anatomy.organs[organ] >= 0.5] = value
        _save(folder / "imagesTr" / case, image, plan)
        _save(folder / "labelsTr" / case, label, plan)
        training.append({"image": f"./imagesTr/{case}", "label": f"./labelsTr/{case}"})
    region = "torso" if plan.body is TORSO else "head"
    what = f"{' and '.join(organs)} in a {region}, {plan.contrast} contrast"
    _describe(folder, what, plan.contrast, organs, training, test)


def _write_other(folder: Path, seed: int) -> None:
    stems = (*_OTHER_BODIES, *NONSENSE)
    for number, stem in watched(enumerate(stems), f"making phantom {folder.name}", len(stems), "images"):
        rng = np.random.default_rng([seed, len(PHANTOM_TASKS), number])
        plan = _OTHER_BODIES.get(stem, _Scan((), (168.0, 168.0, 168.0), "CT"))
        image = _acquire(plan, rng)[1] if stem in _OTHER_BODIES else nonsense(stem, _shape(plan), rng)
        _save(folder / "imagesTs" / f"{stem}.nii.gz", image, plan)
    test = [f"./imagesTs/{stem}.nii.gz" for stem in stems]
    _describe(folder, "limbs and nonsense, out-of-distribution inputs without labels", "mixed", (), [], test)


def _describe(
    folder: Path,
    what: str,
    modality: str,
    organs: tuple[str, ...],
    training: list[dict[str, str]],
    test: list[str],
) -> None:
    """Write `dataset.json`."""
    described = {
        "name": folder.name,
        "description": f"Digital phantom, computed and no patient's: {what}",
        "reference": "medmtl",
        "licence": "as medmtl",
        "release": "1.0",
        "tensorImageSize": "3D",
        "modality": {"0": {"T1": "MRI", "T2": "MRI"}.get(modality, modality)},
        "labels": {str(value): organ for value, organ in enumerate(("background", *organs))},
        "numTraining": len(training),
        "numTest": len(test),
        "training": training,
        "test": test,
    }
    write_text(folder / "dataset.json", json.dumps(described, indent=1) + "\n")


def _shape(plan: _Scan) -> tuple[int, ...]:
    return tuple(round(size / step) for size, step in zip(plan.field, plan.spacing, strict=True))


def _acquire(plan: _Scan, rng: np.random.Generator) -> tuple[Anatomy, NDArray[np.int16]]:
    anatomy = draw(plan.body, _shape(plan), plan.spacing, rng)
    return anatomy, scan(anatomy, plan.contrast, plan.spacing, rng)


def _save(path: Path, voxels: NDArray[np.int16] | NDArray[np.uint8], plan: _Scan) -> None:
    """Save voxels given on right, front, head axes in the order and direction in which the scan stores them."""
    affine = np.diag([*plan.spacing, 1.0])
    affine[:3, 3] = -affine[:3, :3] @ (np.array(voxels.shape) - 1) / 2
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    stored = image.as_reoriented(ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(plan.axes)))
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(stored, path)
