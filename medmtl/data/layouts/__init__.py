"""Layouts: how a folder on disk becomes cases, one module a layout.

`msd.MSD`, `nnunet.NNUNet` and `bids.Bids` are standards, `lists.FileList` and `folders.Folders` what labs have. A task
names one of them, or one of your own, by `layout` with `class_path` and `init_args`; without it the layout is
recognised from the folder. Whatever the layout, a case gives the same voxels.
"""

from medmtl.data.layouts.layout import Corpus, Fold, Layout, check_layout

__all__ = ["Corpus", "Fold", "Layout", "check_layout"]
