"""Copies of labels that lie on their image's grid, where only the header or the storage order differs."""

from collections.abc import Sequence
from pathlib import Path

import nibabel

from medmtl.data_tools.grids import compare, reordered
from medmtl.data_tools.listing import Dataset
from medmtl.errors import DataError
from medmtl.files import resolved, written_whole
from medmtl.io.input import NIFTI
from medmtl.io.volume import read_volume
from medmtl.results.dataset import Finding


def refuse_within(datasets: Sequence[Dataset], out: Path) -> None:
    """Check that a folder for copies does not lie within a dataset.

    Raises:
        DataError: it does.
    """
    for dataset in datasets:
        if resolved(out).is_relative_to(resolved(dataset.root)):
            raise DataError(f"--fix-affine {out} lies within {dataset.root}", fix="write the copies elsewhere")


def write_fixed(datasets: Sequence[Dataset], findings: Sequence[Finding], out: Path) -> list[Path]:
    """Write a copy of every label that has the finding `affine`; the originals stay as they are.

    A label that is stored in another order is put into the image's, and no voxel moves in the world. Any other takes
    over the image's affine, and its voxels move with it: whether they lie right then is for a person to see.

    Args:
        datasets: where the findings come from.
        findings: what was found in them.
        out: folder for the copies, each under its path within the dataset.

    Returns:
        The files that were written.

    Raises:
        DataError: a label is of another format than NIfTI.
    """
    named = {(finding.dataset, finding.case) for finding in findings if finding.rule == "affine"}
    written = []
    for dataset in datasets:
        base = out / dataset.name if len(datasets) > 1 else out
        for case in dataset.corpus.cases:
            if (dataset.name, case.name) in named:
                paths = [label.path for label in case.labels]
                written += [path for label in paths for path in _write(label, case.images[0], dataset.root, base)]
    return written


def _write(label: Path, image: Path, root: Path, out: Path) -> list[Path]:
    """Write the copy of a label, if it needs one."""
    if not label.name.endswith(NIFTI):
        raise DataError(f"{label} is not NIfTI", fix="convert it, then repeat --fix-affine")
    wrong, right = read_volume(label), read_volume(image)
    likeness = compare(wrong, right)
    if likeness not in ("reordered", "affine"):
        return []
    voxels = reordered(wrong, right).voxels if likeness == "reordered" else wrong.voxels
    copy = nibabel.Nifti1Image(voxels, right.affine, nibabel.load(label).header)
    copy.set_sform(right.affine, code="scanner")
    copy.set_qform(right.affine, code="scanner")
    copy.header.set_xyzt_units("mm")
    path = out / label.relative_to(root)
    with written_whole(path) as beside:
        nibabel.save(copy, beside)
    return [path]
