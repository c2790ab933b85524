"""medmtl: one segmentation network for several medical datasets, which says where it can be trusted."""

__version__ = "0.1.0"
