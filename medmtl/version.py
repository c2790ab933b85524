"""The version of medmtl."""

__version__ = "0.1.0"
