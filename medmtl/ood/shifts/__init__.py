"""Shifts: ways in which an image can differ from the training images."""
