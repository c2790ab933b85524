"""Several configurations as one: tasks and OOD images merge by name, as every other key does."""

from collections.abc import Iterable, Mapping
from typing import Any

from medmtl.errors import ConfigError

# Mappings of names of the user's own, which the parser would replace as a whole.
BY_NAME = ("tasks", "ood")


def merged_by_name(configs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Configurations in the order in which they override one another, each with the entries of those before it.

    Args:
        configs: as YAML gives them. An entry of `data.tasks` or `data.ood` overrides the keys that it names of the
            entry of the same name; null removes that.

    Raises:
        ConfigError: an entry is removed that is not there.
    """
    known: dict[str, dict[str, Any]] = {key: {} for key in BY_NAME}
    merged = []
    for config in configs:
        data = config.get("data")
        if isinstance(data, Mapping):
            own = {key: data[key] for key in BY_NAME if isinstance(data.get(key), Mapping)}
            for key, entries in own.items():
                known[key] = _overridden(known[key], entries, f"data.{key}")
            config = {**config, "data": {**data, **{key: known[key] for key in own}}}
        merged.append(dict(config))
    return merged


def _overridden(known: Mapping[str, Any], given: Mapping[str, Any], where: str) -> dict[str, Any]:
    result = dict(known)
    for name, entry in given.items():
        if entry is None:
            if name not in result:
                raise ConfigError(f"{where}.{name} is null and removes nothing", fix="correct the name")
            del result[name]
        else:
            old = result.get(name)
            result[name] = {**old, **entry} if isinstance(old, Mapping) and isinstance(entry, Mapping) else entry
    return result
