"""A dataset without any label: which layouts were tried, what each looks for, and what is in the folder instead."""

import re
from collections.abc import Iterator
from pathlib import Path

from medmtl.data.layouts import LAYOUTS
from medmtl.data_tools.listing import Dataset
from medmtl.results.dataset import Finding

LABEL_WORDS = re.compile(
    r"(?<!un)label|segm?(?![a-z])|segment|mask|annot|truth|contour|(?<![a-z])(gt|roi)s?(?![a-z])", re.IGNORECASE
)
NAMED = 5  # subfolders in a message


def unlabelled(dataset: Dataset) -> Iterator[Finding]:
    """Find that no case of a dataset has a label.

    Args:
        dataset: a task, for which this is an error, or a folder; OOD images need no labels.

    Yields:
        One finding for the dataset: an error for a task, a warning where names of files look like labels, and a note
        otherwise, because a folder of images alone can serve as `data.ood`.
    """
    if dataset.use == "ood" or any(case.labels for case in dataset.corpus.cases):
        return
    similar = [path for case in dataset.corpus.cases for path in case.images if _like_label(dataset.root, path)]
    text = f"no labels: {explained(dataset)}"
    if similar:
        example = similar[0].relative_to(dataset.root)
        text += f"; {len(similar)} of them have names like labels ({example})"
    if dataset.use == "task":
        yield Finding("error", "no-labels", dataset.name, "", text, "correct `root`, or set `layout` of the task")
    elif similar:
        yield Finding("warning", "no-labels", dataset.name, "", text, "name the layout with --layout")
    else:
        fix = "use it as data.ood only; if it has labels, name its layout with --layout"
        yield Finding("note", "no-labels", dataset.name, "", text, fix)


def explained(dataset: Dataset) -> str:
    """Which layouts were tried and what is in the folder instead."""
    folders = sorted(path.name for path in dataset.root.iterdir() if path.is_dir() and not path.name.startswith("."))
    more = f" and {len(folders) - NAMED} more" if len(folders) > NAMED else ""
    inside = f" and the folders {', '.join(folders[:NAMED])}{more}" if folders else " and no folders"
    held = f"the folder holds {len(dataset.corpus.cases)} images{inside}"
    if dataset.recognised and type(dataset.layout) is LAYOUTS[-1]:
        tried = ", ".join(f"{layout.__name__} ({layout.sign})" for layout in LAYOUTS if layout.sign)
        return f"none of these layouts was found: {tried}; {held}"
    return f"read as {type(dataset.layout).__name__}, no case has one; {held}"


def _like_label(root: Path, path: Path) -> bool:
    return path.is_relative_to(root) and bool(LABEL_WORDS.search(str(path.relative_to(root))))
