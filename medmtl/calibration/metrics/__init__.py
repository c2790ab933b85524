"""Reliability bins, the metrics that derive from them, and where they are measured."""
