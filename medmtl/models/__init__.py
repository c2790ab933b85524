"""Models: the segmenter that trains and applies one network for all tasks."""
