"""Prediction: segment new scans with a trained run, with an OOD verdict for each."""
