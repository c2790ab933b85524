"""Layouts: how a folder on disk becomes cases, one module a layout.

`MSD`, `NNUNet` and `Bids` are standards, `FileList` and `Folders` fit what labs have. A task names one of them, or one
of your own, by `layout: {class_path: Folders, init_args: {...}}`; without it the layout is recognised from the folder.
Whatever the layout, a case gives the same voxels.
"""

from pathlib import Path

from medmtl.data.layouts.bids import Bids
from medmtl.data.layouts.folders import Folders, LooseImages
from medmtl.data.layouts.layout import Corpus, Fold, Layout, check_layout, read_corpus
from medmtl.data.layouts.lists import FileList
from medmtl.data.layouts.msd import MSD
from medmtl.data.layouts.nnunet import NNUNet

# Tried in this order: nnU-Net's `dataset.json` is the more particular one, and images lie loose everywhere.
LAYOUTS: tuple[type[Layout], ...] = (NNUNet, MSD, Bids, FileList, Folders, LooseImages)

__all__ = [
    "LAYOUTS",
    "MSD",
    "Bids",
    "Corpus",
    "FileList",
    "Fold",
    "Folders",
    "Layout",
    "LooseImages",
    "NNUNet",
    "check_layout",
    "read_corpus",
    "recognise",
]


def recognise(root: Path) -> Layout:
    """The layout of a folder for which a task names none."""
    return next(layout() for layout in LAYOUTS if layout.fits(root))
