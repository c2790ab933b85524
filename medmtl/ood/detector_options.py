"""Class and options of a detector as plain data: a checkpoint keeps those of the detector that was fitted."""

import inspect
from collections.abc import Mapping
from typing import Any

from medmtl.errors import ConfigError
from medmtl.ood import detectors
from medmtl.ood.detectors.base import Detector


def options_of(detector: Detector) -> dict[str, Any]:
    """Class and options of a detector, as text, numbers and collections of them.

    Options are the arguments of its constructor that it keeps as attributes of the same name, members included.
    """
    names = inspect.signature(type(detector)).parameters
    kept = {name: _plain(getattr(detector, name)) for name in names if hasattr(detector, name)}
    return {"class": type(detector).__name__, "options": kept}


def detector_of(described: Mapping[str, Any]) -> Detector:
    """The detector, not fitted, that `options_of` describes.

    Raises:
        ConfigError: its class is none of `medmtl.ood.detectors`.
        TypeError: it does not take these options.
    """
    name = described.get("class")
    found = getattr(detectors, name, None) if name in detectors.__all__ else None
    if not inspect.isclass(found) or not issubclass(found, Detector):
        raise ConfigError(f"the OOD detector {name!r:.80} is none of medmtl", fix="use one of medmtl.ood.detectors")
    return found(**{option: _built(value) for option, value in described["options"].items()})


def _built(value: Any) -> Any:
    if isinstance(value, Mapping) and set(value) == {"class", "options"}:
        return detector_of(value)
    return [_built(each) for each in value] if isinstance(value, list) else value


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
