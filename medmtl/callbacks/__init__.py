"""Callbacks: thin links between the training loop and the plain rooms."""
