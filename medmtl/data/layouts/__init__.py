"""Layouts: how a folder on disk becomes cases, one module a layout."""
