"""Labels: how the arms of an experiment are called and drawn, checked before any run starts and kept in its folder."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from medmtl.errors import ConfigError, RunError
from medmtl.experiment.plan.arms import ARMS, Arm
from medmtl.files import read_json
from medmtl.look import Look

ARMS_FILE = "arms.json"  # in the experiment's folder

# For arms without a look of their own, in this order.
FREE_LOOKS = (
    Look("X", (0, (8, 2)), "#3D434C"),
    Look("p", (0, (3, 1.2)), "#3D434C"),
    Look("d", (0, (8, 2, 1, 2)), "#5F6670"),
    Look("<", (0, (3, 1.2, 1, 1.2)), "#5F6670"),
    Look(">", (0, (6, 1.5)), "#8A919C"),
    Look("*", (0, (2, 2)), "#3D434C"),
)


def describe_arms(arms: Iterable[Arm]) -> dict[str, dict[str, Any]]:
    """What tables, pages and figures need of arms, as JSON can hold it.

    Args:
        arms: in the order of tables and figures; of a pair, the later arm is compared with the earlier one.

    Returns:
        Key -> `{"label": ..., "look": {"marker": ..., "dashes": ..., "shade": ...}}`, in the same order.

    Raises:
        ConfigError: an arm cannot be shown: its key, label or look cannot be used, or is that of another.
    """
    given: dict[str, tuple[str, Look | None]] = {}
    for arm in arms:
        name = type(arm).__name__
        key, label, look = (getattr(arm, part, None) for part in ("key", "label", "look"))
        if not isinstance(key, str) or not re.fullmatch("[a-z][a-z0-9_]*", key) or key == "pretraining":
            fix = "use lower-case letters, digits and underscores, and not pretraining"
            raise ConfigError(f"arm {name} has the key {key!r}", fix=fix)
        if not isinstance(label, str) or not label.strip() or "\n" in label:
            raise ConfigError(f"arm {key} has the label {label!r}", fix="give it a short text on one line")
        if look is not None and not isinstance(look, Look):
            raise ConfigError(f"arm {key} has the look {look!r}", fix="use a medmtl.look.Look, or none")
        if key in given:
            raise ConfigError(f"two arms have the key {key}", fix="give each a key of its own")
        if label in (other for other, _ in given.values()):
            raise ConfigError(f"two arms have the label {label!r}", fix="give each a label of its own")
        given[key] = label, look
    return _described(given)


def read_arms(file: Path) -> dict[str, dict[str, Any]]:
    """What `describe_arms` gave, as the folder of an experiment keeps it; {} without a file.

    Raises:
        RunError: the file holds something else.
    """
    if not file.is_file():
        return {}
    try:
        return {
            key: {"label": str(about["label"]), "look": Look.from_dict(about["look"]).to_dict()}
            for key, about in read_json(file).items()
        }
    except (AttributeError, ConfigError, KeyError, TypeError, ValueError):
        raise RunError(f"{file} describes no arms", fix="start `medmtl experiment` again") from None


def describe_keys(
    keys: Iterable[str], beside: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
) -> dict[str, dict[str, Any]]:
    """As `describe_arms`, for runs in a folder that does not describe their arms: others than built-in ones by key.

    Args:
        keys: of the arms, in any order; built-in arms come first.
        beside: arms that are described already.
    """
    found = set(keys)
    known = {key: (arm.label, arm.look) for key, arm in ARMS.items() if key in found}
    others = {key: (key, None) for key in sorted(found - set(ARMS))}
    return _described({**known, **others}, {about["look"]["marker"]: key for key, about in beside.items()})


def _described(
    given: Mapping[str, tuple[str, Look | None]], markers: Mapping[str, str] = MappingProxyType({})
) -> dict[str, dict[str, Any]]:
    """Labels and looks, free ones for those without, given marker -> key of other arms."""
    taken = {**{look.marker: key for key, (_, look) in given.items() if look is not None}, **markers}
    free = iter([look for look in FREE_LOOKS if look.marker not in taken])
    described = {}
    for key, (label, look) in given.items():
        if look is not None and taken[look.marker] != key:
            raise ConfigError(
                f"arms {key} and {taken[look.marker]} have one marker", fix="give each a marker of its own"
            )
        chosen = look or next(free, None)
        if chosen is None:
            raise ConfigError(f"no marker is left for arm {key}", fix="give it a look that no other arm has")
        described[key] = {"label": label, "look": chosen.to_dict()}
    return described
