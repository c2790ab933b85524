"""Reliability bins, calibration metrics of them, their intervals, and the regions that they are computed over."""
