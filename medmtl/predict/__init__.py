"""Prediction: a trained run, a stranger's scan, and a verdict beside the mask."""
