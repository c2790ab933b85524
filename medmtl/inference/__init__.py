"""Inference: whole volumes through sliding windows."""
