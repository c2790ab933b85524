"""Typed records of what was measured, with their files."""
