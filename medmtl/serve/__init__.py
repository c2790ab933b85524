"""Serving: a run answers over HTTP with the masks and verdicts of `medmtl predict`, also to 3D Slicer's plug-in."""
