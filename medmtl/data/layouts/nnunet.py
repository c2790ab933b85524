"""The layout of nnU-Net v2: `dataset.json` with `channel_names`, one file a channel, regions and an ignore label."""

import os
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from medmtl.data.case import Case, LabelFile
from medmtl.data.layouts.layout import (
    Corpus,
    Fold,
    Layout,
    ending_notes,
    hidden_notes,
    inside,
    named,
    present,
    read_object,
)
from medmtl.errors import DataError
from medmtl.files import TextError, read_json
from medmtl.io.input import ENDINGS
from medmtl.typed import typed

BACKGROUND, IGNORE = "background", "ignore"
SPLITS = "splits_final.json"
WRITTEN = "regions_class_order"
PARTS = ("imagesTr", "labelsTr", "imagesTs")


class NNUNet(Layout):
    """A folder of `nnUNet_raw`.

    Images are `imagesTr/CASE_0000.nii.gz`, a file a channel, labels `labelsTr/CASE.nii.gz`; those of `imagesTs` have no
    labels. Where `dataset.json` has an entry `dataset`, that lists the files for training instead. Label names mean a
    value, or as regions several, of which `regions_class_order` says how each is written, a later one over an earlier
    one; the label `ignore` marks voxels without a ground truth. Splits are read from
    `splits_final.json` beside `dataset.json`, or in the folder of the same name in `nnUNet_preprocessed`, which is
    taken from the environment or lies beside `nnUNet_raw`.

    Source: nnU-Net v2, `documentation/dataset_format.md`.
    """

    sign = "dataset.json with `channel_names`"

    @classmethod
    def fits(cls, root: Path) -> bool:
        """Whether `dataset.json` has `channel_names`."""
        try:
            return "channel_names" in read_json(root / "dataset.json")
        except (OSError, ValueError, TypeError, TextError):
            return False

    def read(self, owner: str, root: Path) -> Corpus:
        """See `Layout.read`."""
        path = root / "dataset.json"
        dataset = read_object(owner, path, fix="point `root` to a folder of nnUNet_raw")
        names = dataset.get("channel_names")
        if not isinstance(names, dict) or sorted(names) != sorted(map(str, range(len(names)))):
            raise DataError(f"{owner}: `channel_names` of {path} does not number channels", fix='write {"0": "CT"}')
        channels = tuple(str(names[str(channel)]) for channel in range(len(names)))
        organs, ignore = _labels(owner, path, dataset.get("labels"))
        written = dataset.get(WRITTEN)
        organs = organs if written is None else _written_first(owner, path, organs, written)
        ending = _ending(owner, path, dataset)
        cases = (
            _listed(owner, path, dataset["dataset"])
            if "dataset" in dataset
            else [
                Case(case, case, images, (LabelFile(_label(owner, root / f"labelsTr/{case}{ending}")),))
                for case, images in _channel_files(owner, root / "imagesTr", ending).items()
            ]
        )
        _check_training(owner, path, dataset, cases)
        cases += [Case(case, case, images) for case, images in _channel_files(owner, root / "imagesTs", ending).items()]
        for case in cases:
            if len(case.images) != len(channels):
                raise DataError(
                    f"{owner}, case {case.name}: {len(case.images)} image files, {path} names {len(channels)} channels",
                    fix="add the missing files, or correct `channel_names`",
                )
        files = [(root / f"labelsTr/{case.name}{ending}", label.path) for case in cases for label in case.labels]
        notes = (
            *hidden_notes([path for part in PARTS for path in (root / part).glob("._*")]),
            *(ending_notes(files) if "dataset" not in dataset else ()),
        )
        channel_names, folds = " ".join(channels), _folds(owner, root)
        return Corpus(tuple(cases), organs, ignore, channels, channel_names, folds, written is not None, notes)


def _ending(owner: str, path: Path, dataset: dict[str, Any]) -> str:
    ending = dataset.get("file_ending")
    if ending not in ENDINGS:
        raise DataError(f"{owner}: `file_ending` of {path} is {ending!r}", fix=f"use one of {', '.join(ENDINGS)}")
    return str(ending)


def _labels(owner: str, path: Path, labels: Any) -> tuple[dict[str, tuple[int, ...]], int | None]:
    try:
        values = {
            str(name): [int(v) for v in (value if isinstance(value, list) else [value])]
            for name, value in labels.items()
        }
    except (AttributeError, TypeError, ValueError, OverflowError):
        raise DataError(
            f"{owner}: `labels` of {path} does not give names their values", fix='write {"background": 0, "organ": 1}'
        ) from None
    ignored = values.pop(IGNORE, None)
    if ignored is not None and len(ignored) != 1:
        raise DataError(f"{owner}: the label `ignore` of {path} has {len(ignored)} values", fix="give it one")
    values.pop(BACKGROUND, None)
    return named((name, value) for name, several in values.items() for value in several), ignored[
        0
    ] if ignored else None


def _written_first(
    owner: str, path: Path, organs: dict[str, tuple[int, ...]], written: Any
) -> dict[str, tuple[int, ...]]:
    """The labels with the value first that `regions_class_order` gives each of them."""
    if not isinstance(written, list) or len(written) != len(organs):
        raise DataError(
            f"{owner}: `{WRITTEN}` of {path} does not give its {len(organs)} labels a value each",
            fix="list one of the values of each label, without background and ignore",
        )
    for (name, values), value in zip(organs.items(), written, strict=True):
        if value not in values:
            raise DataError(
                f"{owner}: `{WRITTEN}` of {path} gives {name} the value {value!r:.20}", fix=f"use one of {list(values)}"
            )
    return {
        name: tuple(dict.fromkeys((value, *own))) for (name, own), value in zip(organs.items(), written, strict=True)
    }


def _label(owner: str, path: Path) -> Path:
    found = present(path)
    if not found.is_file():
        raise DataError(f"{owner}: {path} is missing", fix="restore it, or take its image out of imagesTr")
    return found


def _channel_files(owner: str, folder: Path, ending: str) -> dict[str, tuple[Path, ...]]:
    """Case -> its files, one a channel."""
    found: dict[str, dict[int, Path]] = defaultdict(dict)
    for path in sorted(folder.glob("*")):
        if path.name.startswith(".") or not path.name.lower().endswith(ending):
            continue
        parts = re.fullmatch(r"(.+)_(\d{4})", path.name[: -len(ending)])
        if parts is None:
            raise DataError(f"{owner}: {path} does not end with a channel", fix=f"rename it to CASE_0000{ending}")
        found[parts[1]][int(parts[2])] = path
    for case, files in found.items():
        if sorted(files) != list(range(len(files))):
            raise DataError(
                f"{owner}, case {case}: {folder} holds its channels {sorted(files)}", fix="number them 0000, 0001, ..."
            )
    return {case: tuple(files[channel] for channel in sorted(files)) for case, files in found.items()}


def _listed(owner: str, path: Path, entries: Any) -> list[Case]:
    """The cases of an entry `dataset`: case -> its `images` and its `label`."""
    cases = []
    try:
        for case, entry in entries.items():
            images = tuple(inside(owner, path.parent, text, path) for text in entry["images"])
            label = inside(owner, path.parent, entry["label"], path)
            cases.append(Case(str(case), str(case), images, (LabelFile(label),)))
    except (AttributeError, KeyError, TypeError):
        raise DataError(
            f"{owner}: `dataset` of {path} does not list files", fix='write {"CASE": {"images": [...], "label": "..."}}'
        ) from None
    return cases


def _check_training(owner: str, path: Path, dataset: dict[str, Any], cases: list[Case]) -> None:
    expected = dataset.get("numTraining", len(cases))
    if expected != len(cases):
        raise DataError(
            f"{owner}: {path} announces {expected} training cases, {len(cases)} are there",
            fix="add the missing files, or correct `numTraining`",
        )


def _folds(owner: str, root: Path) -> tuple[Fold, ...]:
    preprocessed = Path(os.environ.get("nnUNet_preprocessed") or root.absolute().parent.parent / "nnUNet_preprocessed")  # noqa: SIM112
    for path in (root / SPLITS, preprocessed / root.absolute().name / SPLITS):
        if path.is_file():
            try:
                return tuple(typed(list[Fold], read_json(path)))
            except ValueError:
                raise DataError(
                    f"{owner}: {path} does not list folds", fix='write [{"train": [CASE, ...], "val": [...]}, ...]'
                ) from None
    return ()
