"""The layout of BIDS: raw images by subject, labels beside them or among the derivatives."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medmtl.data.case import Case, LabelFile
from medmtl.data.layouts.layout import Corpus, Layout, named, values_of
from medmtl.errors import ConfigError, DataError
from medmtl.files import TextError, read_json, read_table
from medmtl.io.input import has_ending, stem

LABELS = ("dseg", "mask")
# What a derivative adds to the name of the image that it was made of.
ADDED = {"atlas", "den", "desc", "hemi", "label", "res", "scale", "seg", "space"}


class Bids(Layout):
    """`sub-01/[ses-01/]anat/sub-01_ses-01_T1w.nii.gz`, with labels `.._dseg` or `.._label-NAME_mask`.

    Labels lie in the same tree below `derivatives/NAME`, or beside the raw images. They belong to the image with
    the same entities (`sub`, `ses`, `run`, ...); what a derivative adds (`space`, `desc`, `label`, ...) does not
    count. The subject is the patient. Names of a `_dseg` are read from a `*dseg.tsv` of the derivative (columns `index`
    and `name`); masks stand for 1, 2, ... in the order of the names of their entity `label`.

    Source: Brain Imaging Data Structure 1.10, derivatives: imaging data types.

    Args:
        image: suffix of the images, such as T1w, or one a channel; by default the only one there is.
        derivative: folder below `derivatives` that holds the labels; by default all, and beside the images.
        labels: dseg, or mask; by default the one there is.
        entities: what else labels must have in their name, such as `{desc: manual}`.
        organs: name of an organ -> label value, or values of a region, for a `_dseg` that no table names.
        ignore: the label value of voxels without a ground truth.
    """

    sign = "dataset_description.json with `BIDSVersion`"

    def __init__(
        self,
        image: str | list[str] | None = None,
        derivative: str | None = None,
        labels: Literal["dseg", "mask"] | None = None,
        entities: dict[str, str] | None = None,
        organs: dict[str, int | list[int]] | None = None,
        ignore: int | None = None,
    ) -> None:
        self.image = [image] if isinstance(image, str) else image
        if derivative is not None and (Path(derivative).is_absolute() or ".." in Path(derivative).parts):
            raise ConfigError(f"layout: derivative {derivative!r}", fix="use a folder below `derivatives`")
        self.derivative = derivative
        self.labels = labels
        self.entities = entities or {}
        self.organs = values_of(organs)
        self.ignore = ignore

    @classmethod
    def fits(cls, root: Path) -> bool:
        """Whether `dataset_description.json` has a `BIDSVersion`."""
        try:
            return "BIDSVersion" in read_json(root / "dataset_description.json")
        except (OSError, ValueError, TypeError, TextError):
            return False

    def read(self, owner: str, root: Path) -> Corpus:
        """See `Layout.read`."""
        raw = _files([root])
        suffixes = self._suffixes(owner, root, raw)
        derivatives = sorted((root / "derivatives").glob(self.derivative or "*"))
        labels = [file for file in [*([] if self.derivative else raw), *_files(derivatives)] if self._is_label(file)]
        kinds = sorted({file.suffix for file in labels})
        if len(kinds) > 1:
            raise DataError(f"{owner}: {root} holds both _dseg and _mask", fix="set `labels` of the layout to one")
        masks = sorted({file.entities.get("label", "mask") for file in labels}) if kinds == ["mask"] else []
        belonging: dict[tuple[tuple[str, str], ...], list[_File]] = defaultdict(list)
        for file in labels:
            belonging[file.source].append(file)
        images: dict[tuple[tuple[str, str], ...], dict[str, Path]] = defaultdict(dict)
        for file in raw:
            if file.suffix in suffixes:
                images[file.source][file.suffix] = file.path
        cases = []
        for source, channels in images.items():
            name = "_".join(f"{key}-{value}" for key, value in source)
            if set(channels) != set(suffixes):
                missing = sorted(set(suffixes) - set(channels))
                raise DataError(f"{owner}, case {name}: no _{missing[0]} in {root}", fix="add it, or set `image`")
            truth = tuple(self._label_files(owner, name, belonging[source], masks))
            cases.append(
                Case(name, f"sub-{dict(source)['sub']}", tuple(channels[suffix] for suffix in suffixes), truth)
            )
        organs = {mask: (value,) for value, mask in enumerate(masks, 1)} or self.organs or _table(owner, derivatives)
        return Corpus(tuple(cases), organs, self.ignore, tuple(suffixes), " ".join(suffixes))

    def _suffixes(self, owner: str, root: Path, raw: list["_File"]) -> list[str]:
        present = sorted({file.suffix for file in raw} - set(LABELS))
        if not present:
            raise DataError(
                f"{owner}: {root} holds no images sub-*/**/sub-*_SUFFIX", fix="point `root` to a BIDS folder"
            )
        if self.image is None and len(present) > 1:
            raise DataError(
                f"{owner}: {root} holds images {', '.join(present)}", fix="set `image` of the layout to one"
            )
        return self.image or present

    def _is_label(self, file: "_File") -> bool:
        wanted = LABELS if self.labels is None else (self.labels,)
        return file.suffix in wanted and self.entities.items() <= file.entities.items()

    def _label_files(self, owner: str, case: str, files: list["_File"], masks: list[str]) -> Iterable[LabelFile]:
        seen: dict[int | None, Path] = {}
        for file in files:
            value = masks.index(file.entities.get("label", "mask")) + 1 if masks else None
            if value in seen:
                raise DataError(
                    f"{owner}, case {case}: {seen[value]} and {file.path} are one label too many",
                    fix="choose by `derivative` or `entities` of the layout",
                )
            seen[value] = file.path
            yield LabelFile(file.path, value)


@dataclass(frozen=True)
class _File:
    path: Path
    entities: dict[str, str]
    suffix: str

    @property
    def source(self) -> tuple[tuple[str, str], ...]:
        """The entities of the image that it was made of."""
        return tuple((key, value) for key, value in self.entities.items() if key not in ADDED)


def _files(roots: Iterable[Path]) -> list[_File]:
    """The volumes of the subjects below some folders."""
    found = []
    for path in [path for root in roots for path in sorted(root.glob("sub-*/**/sub-*"))]:
        *entities, suffix = stem(path).split("_")
        pairs = [entity.partition("-") for entity in entities]
        if has_ending(path) and all(mark for _, mark, _ in pairs):
            found.append(_File(path, {key: value for key, _, value in pairs}, suffix))
    return found


def _table(owner: str, derivatives: Iterable[Path]) -> dict[str, tuple[int, ...]]:
    """Names of the label values, of the first table among the derivatives."""
    for path in [path for derivative in derivatives for path in sorted(derivative.glob("*dseg.tsv"))]:
        try:
            return named((row["name"], int(row["index"])) for row in read_table(path, "\t"))
        except (KeyError, TypeError, ValueError):
            raise DataError(
                f"{owner}: {path} does not name label values", fix="use columns `index` and `name`"
            ) from None
    return {}
