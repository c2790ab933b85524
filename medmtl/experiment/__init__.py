"""Dedicated, transfer and multi-task training as one experiment that can be stopped, gone on with and compared."""
