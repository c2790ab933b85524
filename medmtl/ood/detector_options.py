"""Class and options of a detector as plain data: a checkpoint keeps those of the detector that was fitted."""

import inspect
from collections.abc import Mapping
from typing import Any

from medmtl.ood.detectors.base import Detector


def options_of(detector: Detector) -> dict[str, Any]:
    """Class and options of a detector, as text, numbers and collections of them.

    Options are the arguments of its constructor that it keeps as attributes of the same name, members included.
    """
    names = inspect.signature(type(detector)).parameters
    kept = {name: _plain(getattr(detector, name)) for name in names if hasattr(detector, name)}
    return {"class": type(detector).__name__, "options": kept}


def same_options(one: Any, other: Any) -> bool:
    """Whether two descriptions agree, but for options that only one of them has: those of another version."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return all(same_options(one[key], other[key]) for key in one.keys() & other.keys())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_options, one, other))
    return bool(one == other)


def _plain(value: Any) -> Any:
    if isinstance(value, Detector):
        return options_of(value)
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
