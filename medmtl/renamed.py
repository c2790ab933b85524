"""Names of earlier versions in configurations and checkpoints, read as those of this version."""

import logging
from collections.abc import Mapping
from typing import Any

logger = logging.getLogger(__name__)

# Key with dots between the levels -> its present name.
KEYS = {"data.foreign": "data.ood", "source": "pretrain_on"}
# Key that is gone -> why.
GONE = {"scaling.region": "a scaling counts the whole volume"}
# Where a class lay -> where it lies.
CLASSES = {
    **{
        f"medmtl.ood.{module}.{name}": f"medmtl.ood.detectors.{name}"
        for module, names in {
            "by_task": ("ByTask",),
            "classifier": ("TaskClassifier",),
            "distances": ("FRODO", "MDPool", "PCAMahalanobis", "KNN", "Contrast", "ViM"),
            "fusion": ("Fusion",),
            "intensity": ("IntensityHistogram",),
            "output_detectors": ("OutputScore", "Volume"),
            "spectral_detector": ("Spectral",),
        }.items()
        for name in names
    }
}


def with_new_names(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A copy of a configuration in which names of earlier versions are those of this version.

    Nested mappings, keys with dots between the levels (as in `overrides`) and class paths are read; keys that are gone
    are left out. One warning lists all that was renamed or left out.

    Args:
        config: as YAML gives it.
        where: the file, for the warning.
    """
    renamed, found = rename(config)
    warn_of_names(found, where)
    return renamed


def rename(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """As `with_new_names`, without the warning: the copy, and old name -> new name, empty if it is gone."""
    found: dict[str, str] = {}
    return _renamed(config, "", found), found


def warn_of_names(found: Mapping[str, str], where: str) -> None:
    """Warn of names that `rename` found, if any: once for files that are read together."""
    if found:
        each = (f"{old} is now {new}" if new else f"{old} is gone ({GONE[old]})" for old, new in found.items())
        names = ", ".join(each)
        logger.warning("%s uses names of an earlier version: %s", where, names)


def with_first_names(value: Any, path: str = "") -> Any:
    """A copy of a configuration in which what was renamed has its first name: the reverse of `rename`.

    Args:
        value: the configuration, or a part of it.
        path: where the part lies, with dots between the levels.
    """
    if isinstance(value, Mapping):
        found = {}
        for key, item in value.items():
            full = f"{path}.{key}" if path else str(key)
            first = next((old for old, new in KEYS.items() if new == full), full)
            found[first.rpartition(".")[2]] = with_first_names(item, full)
        return found
    if isinstance(value, list):
        return [with_first_names(item, path) for item in value]
    return next((old for old, new in CLASSES.items() if new == value), value)


def state_with_new_names(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state of a conformal detector in a checkpoint, with the keys of today.

    Args:
        state: as `ConformalDetector.state_dict` of this version or an earlier one gave it.
    """
    names = {"recipes": "preprocessings", "familiar": "held_out"}
    renamed = {names.get(key, key): value for key, value in state.items()}
    converted = {"fitted": _detector_state, "configured": _without_floors}
    return {key: converted[key](value) if key in converted else value for key, value in renamed.items()}


def _without_floors(value: Any) -> Any:
    """The options of a detector without the floor of `Spectral`, whose default changed: its signatures have it."""
    if isinstance(value, Mapping):
        dropped = "floor" if "per_voxel" in value else None
        return {key: _without_floors(each) for key, each in value.items() if key != dropped}
    return [_without_floors(each) for each in value] if isinstance(value, list) else value


def _detector_state(value: Any) -> Any:
    """The state of a detector: of earlier versions, that of `ByTask` alone had another key, with two in all."""
    if not isinstance(value, Mapping):
        return value
    old = set(value) == {"tasks", "recipes"}
    return {"preprocessings" if old and key == "recipes" else key: _detector_state(each) for key, each in value.items()}


def _renamed(value: Any, path: str, found: dict[str, str]) -> Any:
    if isinstance(value, Mapping):
        result = {}
        for key, item in value.items():
            full = f"{path}.{key}" if path else str(key)
            if full in GONE:
                found[full] = ""
                continue
            new = _new_key(full)
            if new != full:
                found[full] = new
            # Overrides hold whole paths again, so that their own place does not count.
            inner = "" if new in ("overrides", "finetune_overrides") else new
            result[new.removeprefix(f"{path}.") if path else new] = _renamed(item, inner, found)
        return result
    if isinstance(value, list):
        return [_renamed(item, path, found) for item in value]
    if isinstance(value, str) and value in CLASSES:
        found[value] = CLASSES[value]
        return CLASSES[value]
    return value


def _new_key(path: str) -> str:
    for old, new in KEYS.items():
        if path == old or path.startswith(f"{old}."):
            return new + path.removeprefix(old)
    return path
