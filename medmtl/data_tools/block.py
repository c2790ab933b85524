"""`medmtl data import`: a dataset folder as a block of `data.tasks` in a configuration."""

import json
import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
import yaml
from nibabel.affines import voxel_sizes
from nibabel.orientations import aff2axcodes

from medmtl.data.case import named
from medmtl.data.classes import LONGEST, MARKUP, larger_first, usable
from medmtl.data.layouts.layout import Corpus
from medmtl.data_tools.listing import list_folder, parse_layout
from medmtl.data_tools.unlabelled import explained
from medmtl.errors import ConfigError, DataError, on_one_line
from medmtl.files import parse_yaml, resolved
from medmtl.io.input import MODALITIES
from medmtl.io.stored import check_grid
from medmtl.io.volume import opened

MOST_VOXELS = 4_000_000  # of a median volume in the working space: 20 MB of cache with its label
READ = 12  # volumes whose size and spacing are read
MR_WORDS = re.compile(r"mr|mri|t1|t2|flair|adc|dwi|dti|bold|swi|cine|lge", re.IGNORECASE)


def task_block(
    folder: Path,
    name: str | None = None,
    modality: str | None = None,
    organ: Sequence[str] | None = None,
    layout: str | None = None,
) -> str:
    """The block of a task, with comments on where each line comes from.

    Args:
        folder: a dataset folder of any layout.
        name: of the task; None: from the folder and the modality.
        modality: one of `MODALITIES`; None: as the dataset declares.
        organ: names that the dataset declares, or label values, that are merged into one organ of interest; None: the
            label that the dataset declares, and classes where it declares several.
        layout: how files lie in the folder, see `parse_layout`; None: recognised.

    Returns:
        YAML, indented as `data.tasks` has it.

    Raises:
        DataError: the folder cannot be read, has no labelled case, or declares no label and `organ` names none.
        ConfigError: an unknown modality or organ.
    """
    dataset = list_folder(folder, None if layout is None else parse_layout(layout))
    corpus = dataset.corpus
    labelled = [case for case in corpus.cases if case.labels]
    if not labelled:
        raise DataError(
            f"{folder} has no labels: {explained(dataset)}",
            fix="name its layout by --layout, or use it in `data.ood`",
        )
    if modality is not None and modality not in MODALITIES:
        raise ConfigError(f"--modality {modality}", fix=f"use one of {', '.join(MODALITIES)}")
    kind = modality or guess_modality(corpus)
    wanted = _labels(folder, corpus, organ)
    spacing, native = _spacing(folder, corpus)
    pattern = patient_pattern([case.name for case in labelled])
    lines = [
        (f"root: {_scalar(_portable(dataset.root))}", ""),
        (f"modality: {kind}", _of_channels(corpus, modality is None and kind == "other")),
        wanted,
        (f"spacing: [{', '.join(f'{size:g}' for size in spacing)}]", f"mm; the images have {native}"),
    ]
    if len(corpus.channels) > 1:
        several = ", ".join(f"{number} {channel}" for number, channel in enumerate(corpus.channels))
        lines.append(("channel: 0", f"{several}; a list stacks several"))
    if pattern is not None:
        lines.append((f"patient: {_scalar(pattern)}", "names repeat: one patient may have several cases"))
    if layout is not None:
        lines.append((f"layout: {_flow(layout)}", ""))
    counts = f"{len(labelled)} labelled cases, {len(corpus.cases) - len(labelled)} without"
    task = _scalar(name) if name else _name(dataset.root.name, kind)
    block = [(f"    {task}:", counts), *((f"      {key}", why) for key, why in lines)]
    # A comment holds names that the dataset declares: a line feed in one would make YAML of what follows it.
    return "".join(f"{f'{line:<35} # {on_one_line(comment)}' if comment else line}\n" for line, comment in block)


def guess_modality(corpus: Corpus) -> str:
    """The modality according to the names of the channels; "other" if they name none."""
    words = re.split(r"[^A-Za-z0-9]+", " ".join(corpus.channels[:1]) or corpus.modality)
    if any(word.upper() == "CT" for word in words):
        return "CT"
    if any(word.upper() in ("PET", "PT", "SUV", "FDG") for word in words):
        return "PET"
    return "MR" if any(MR_WORDS.match(word) for word in words) else "other"


def working_spacing(spacing: Sequence[float], extent: Sequence[float], most: int = MOST_VOXELS) -> list[float]:
    """A working voxel size that keeps a volume trainable.

    Args:
        spacing: median voxel size of the images in mm, by axis.
        extent: median size of the images in mm, by axis.
        most: voxels that a volume may have.

    Returns:
        The spacing, rounded to two digits. Where the volume would have more voxels, the finest axes are made coarser,
        all to one size, until it has not.
    """
    sizes = list(spacing)
    for coarser in [*sorted(set(spacing))[1:], math.inf]:
        if math.prod(length / size for length, size in zip(extent, sizes, strict=True)) <= most:
            break
        finest = [axis for axis in range(3) if sizes[axis] < coarser]
        rest = math.prod(extent) / math.prod(sizes[axis] for axis in range(3) if axis not in finest) / most
        wanted = min(rest ** (1 / len(finest)), coarser)
        for axis in finest:
            sizes[axis] = max(sizes[axis], wanted)
    return [float(f"{size:.2g}") for size in sizes]


def patient_pattern(names: Sequence[str]) -> str | None:
    """A pattern for the patient within a case name, where names such as `patient007_frame01` repeat.

    Returns:
        A regular expression whose group 1 is all but the last part of a name; None where the names do not suggest one:
        the rest must hold a number, must repeat, and must not be the same in more than a third of the names.
    """
    parts = [re.fullmatch(r"(.*\d.*)[_-]([^_-]+)", name) for name in names]
    if not names or not all(parts):
        return None
    groups = Counter(part[1] for part in parts if part)
    if max(groups.values()) < 2 or max(groups.values()) > len(names) / 3:
        return None
    return "^(.+)[_-][^_-]+$"


def _labels(folder: Path, corpus: Corpus, chosen: Sequence[str] | None) -> tuple[str, str]:
    """The line of `organ` or `classes`, and what to say of it."""
    organs = corpus.organs
    names: dict[int, str] = {values[0]: organ for organ, values in organs.items() if len(values) == 1}
    if chosen is None and len(organs) > 1:
        ordered = organs if corpus.ordered else larger_first({organ: sorted(own) for organ, own in organs.items()})
        usable_names = _class_names(list(ordered))
        classes = {
            name: values[0] if len(values) == 1 else list(values)
            for name, values in zip(usable_names, ordered.values(), strict=True)
        }
        flow = yaml.safe_dump(classes, default_flow_style=True, sort_keys=False, width=4096).strip()
        merged = sorted({value for values in organs.values() for value in values})
        return f"classes: {flow}", f"an output each; `organ: {merged}` merges them"
    if chosen is None:
        merge = {value for each in organs.values() for value in each}
        if not merge:
            raise DataError(f"{folder} declares no labels", fix="add --organ 1, or what it is called")
    else:
        merge = set()
        for word in chosen:
            if word not in organs and not word.isdigit():
                raise ConfigError(f"--organ {word}", fix=f"use a label value, or one of: {', '.join(organs)}")
            merge |= set(organs[word]) if word in organs else {int(word)}
    meaning = ", ".join(f"{value} {names[value]}" for value in sorted(merge) if value in names)
    return f"organ: {sorted(merge)}", f"merged into one: {meaning}" if len(merge) > 1 and meaning else meaning


def _class_names(declared: Sequence[str]) -> list[str]:
    """Names that classes can have, each once."""
    names: list[str] = []
    for each in declared:
        plain = "".join(letter if letter.isprintable() and letter not in MARKUP else "-" for letter in each)[:LONGEST]
        name = plain if usable(plain) else f"class {plain}".strip()[:LONGEST]
        while name in names:
            name = f"{name[: LONGEST - 2]} 2"
        names.append(name)
    return names


def _spacing(folder: Path, corpus: Corpus) -> tuple[list[float], str]:
    """Working spacing, and the median of some images, spread over the dataset; right-left, front-back, head-foot."""
    cases = corpus.cases
    some = [cases[round(number)] for number in np.linspace(0, len(cases) - 1, min(READ, len(cases)))]
    sizes, extents = [], []
    for case in some:
        with named(str(folder), case.name), opened(case.images[0]) as stored:
            check_grid(stored.where, stored.affine, stored.shape)
            shape, affine = stored.shape, stored.affine
        order = ["RLAPSI".index(str(letter)) // 2 for letter in aff2axcodes(affine)]
        axes = [order.index(direction) for direction in range(3)]
        sizes.append([float(voxel_sizes(affine)[axis]) for axis in axes])
        extents.append([size * shape[axis] for size, axis in zip(sizes[-1], axes, strict=True)])
    spacing = [median(each) for each in zip(*sizes, strict=True)]
    extent = [median(each) for each in zip(*extents, strict=True)]
    return working_spacing(spacing, extent), " x ".join(f"{size:.3g}" for size in spacing)


def _name(folder: str, modality: str) -> str:
    """`Task04_Hippocampus` and `Dataset004_Hippocampus` -> `HippocampusMR`."""
    short = re.sub(r"^(Task|Dataset)\d+_", "", folder)
    short = re.sub(r"[^A-Za-z0-9]+", "", short) or "Task"
    return short if modality == "other" or short.endswith(modality) else short + modality


def _of_channels(corpus: Corpus, unknown: bool) -> str:
    if unknown:
        return f"not declared by the dataset: one of {', '.join(MODALITIES)}"
    return f"channel 0 is {corpus.channels[0]}" if corpus.channels else ""


def _portable(root: Path) -> str:
    """The root, by `${MEDMTL_DATA}` where it lies within."""
    path, data = resolved(root), os.environ.get("MEDMTL_DATA")
    if data and path.is_relative_to(resolved(Path(data))):
        return "${MEDMTL_DATA}/" + str(path.relative_to(resolved(Path(data)))).replace("$", "$$")
    return str(path).replace("$", "$$")


def _flow(layout: str) -> str:
    """A layout as one line of YAML."""
    given = parse_yaml(layout)
    block = given if isinstance(given, dict) else {"class_path": given}
    return str(yaml.safe_dump(block, default_flow_style=True, width=4096)).strip()


def _scalar(text: str) -> str:
    """A text as YAML, quoted only where it must be."""
    try:
        plain = parse_yaml(f"{text}: 0") == {text: 0} and parse_yaml(text) == text
    except ValueError:
        plain = False
    return text if plain else json.dumps(text, ensure_ascii=False).replace("\x7f", "\\x7f")
