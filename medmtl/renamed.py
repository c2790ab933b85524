"""Names of earlier versions in configurations and checkpoints, read as those of today."""

import logging
from collections.abc import Mapping
from typing import Any

logger = logging.getLogger(__name__)

# Key with dots between the levels -> its name today.
KEYS = {"data.foreign": "data.ood", "source": "pretrain_on"}
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
    """A copy of a configuration in which names of earlier versions are those of today.

    Nested mappings, keys with dots between the levels (as in `overrides`) and class paths are read. All that was
    renamed is said in one warning.

    Args:
        config: as YAML gives it.
        where: the file, for the warning.
    """
    found: dict[str, str] = {}
    renamed: dict[str, Any] = _renamed(config, "", found)
    if found:
        told = ", ".join(f"{old} is now {new}" for old, new in found.items())
        logger.warning("%s uses names of an earlier version: %s", where, told)
    return renamed


def _renamed(value: Any, path: str, found: dict[str, str]) -> Any:
    if isinstance(value, Mapping):
        result = {}
        for key, item in value.items():
            full = f"{path}.{key}" if path else str(key)
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
