"""The layout of the Medical Segmentation Decathlon: `dataset.json`, `imagesTr`, `labelsTr`, `imagesTs`."""

from pathlib import Path
from typing import Any

from medmtl.data.case import Case, LabelFile
from medmtl.data.layouts.layout import (
    Corpus,
    Layout,
    ending_notes,
    hidden_notes,
    inside,
    named,
    present,
    read_object,
)
from medmtl.errors import DataError
from medmtl.io.input import stem


class MSD(Layout):
    """`dataset.json` lists `training` pairs and `test` images, and names `labels` by their values."""

    sign = "dataset.json"

    @classmethod
    def fits(cls, root: Path) -> bool:
        """Whether there is a `dataset.json`: nnU-Net, which has one too, is tried first."""
        return (root / "dataset.json").is_file()

    def read(self, owner: str, root: Path) -> Corpus:
        """See `Layout.read`."""
        path = root / "dataset.json"
        dataset = read_object(owner, path, fix="point `root` to a Medical Segmentation Decathlon folder")
        cases, dots = [], []
        files: list[tuple[Path, Path]] = []
        for part, keys in (("training", ("image", "label")), ("test", ("image",))):
            for entry in _listed(owner, path, dataset, part):
                named_files = [_inside(owner, path, entry, key) for key in keys]
                if named_files[0].name.startswith("._"):
                    dots.append(named_files[0])
                    continue
                image, *labels = found = [present(file) for file in named_files]
                files += zip(named_files, found, strict=True)
                cases.append(Case(stem(image), stem(image), (image,), tuple(LabelFile(label) for label in labels)))
        channels = tuple(map(str, _named(dataset.get("modality")).values()))
        return Corpus(
            tuple(cases),
            _organs(owner, path, dataset),
            channels=channels,
            modality=" ".join(channels),
            notes=(*hidden_notes(dots), *ending_notes(files)),
        )


def _organs(owner: str, path: Path, dataset: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    labels = dataset.get("labels")
    if labels is None and not dataset.get("training"):
        return {}  # images without labels need none
    try:
        return named((str(organ), int(value)) for value, organ in labels.items())  # type: ignore[union-attr]
    except (AttributeError, TypeError, ValueError):
        raise DataError(
            f"{owner}: `labels` of {path} does not name label values", fix='write {"0": "background", "1": "organ"}'
        ) from None


def _named(value: Any) -> dict[str, Any]:
    """`{"0": name, ...}`; some datasets write the name alone."""
    return value if isinstance(value, dict) else {} if value is None else {"0": value}


def _listed(owner: str, path: Path, dataset: dict[str, Any], key: str) -> list[Any]:
    entries = dataset.get(key, [])
    if not isinstance(entries, list):
        raise DataError(f"{owner}: `{key}` of {path} is not a list", fix="correct the file")
    return entries


def _inside(owner: str, path: Path, entry: Any, key: str) -> Path:
    """The file that an entry (`{"image": ..., "label": ...}`, or the path of an image) means, within the root."""
    text = entry.get(key) if isinstance(entry, dict) else entry if key == "image" else None
    if not isinstance(text, str):
        raise DataError(f"{owner}: {entry!r} in {path} has no `{key}`", fix="correct the file")
    return inside(owner, path.parent, text, path)
