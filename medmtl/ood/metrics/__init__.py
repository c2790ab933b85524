"""How well a score detects out-of-distribution images and bad segmentations."""
