"""Options that are keys of a configuration, from its JSON Schema: name, text, choices and default."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from medmtl.files import read_text, shipped_config

# The schema of what a command is configured by.
SCHEMAS = {
    "fit": "run",
    "test": "run",
    "calibrate": "run",
    "ood": "benchmark",
    "experiment": "experiment",
}
# Options that get the value of another one: that, and the option.
LINKS = (
    ("data.patch_size", "model.patch_size"),
    ("seed_everything", "data.seed"),
    ("model.outputs", "data.outputs"),
)
NOT_ASKED = {target for _, target in LINKS} | {"run"}  # for which there is the flag
FEW = 6  # choices that a usage line lists
LETTERS = {"integer": "N", "number": "X", "boolean": "BOOL"}


@dataclass(frozen=True)
class Key:
    """A key.

    Attributes:
        name: with dots between the levels, NAME being a name that the user chooses.
        text: what it means, and its default.
        choices: all values, where they are few.
        letter: what a usage line has for its value.
    """

    name: str
    text: str
    choices: tuple[str, ...]
    letter: str


@cache
def sections(command: str) -> tuple[str, ...]:
    """The sections of a command's configuration."""
    return tuple(name for name, content in _schema(command).items() if "properties" in content)


@cache
def keys_of(command: str) -> dict[str, Key]:
    """All keys that a command takes by name, in the order of the configuration."""
    return {key.name: key for key in _keys(_schema(command)) if key.name not in NOT_ASKED}


def default_of(command: str, name: str) -> Any:
    """The default of a key; None where it has none.

    Args:
        command: whose configuration it belongs to.
        name: of the key, with dots between the levels.
    """
    *sections, last = name.split(".")
    properties = _schema(command)
    for section in sections:
        properties = properties[section]["properties"]
    return properties[last].get("default")


def _schema(command: str) -> dict[str, Any]:
    schema = json.loads(read_text(shipped_config(f"{SCHEMAS[command]}.schema.json")))
    properties: dict[str, Any] = schema["properties"]
    return properties


def _keys(properties: Mapping[str, Any], place: str = "") -> Iterator[Key]:
    for name, content in properties.items():
        whole = f"{place}{name}"
        if place or "properties" not in content:
            yield _key(whole, content)
        for inner in (content, *content.get("anyOf", ())):
            chosen = inner.get("additionalProperties")
            if isinstance(chosen, dict) and "properties" in chosen:
                yield from _keys(chosen["properties"], f"{whole}.NAME.")
            elif "properties" in inner and "class_path" not in inner["properties"]:
                yield from _keys(inner["properties"], f"{whole}.")


def _key(name: str, content: Mapping[str, Any]) -> Key:
    text = content.get("description", "")
    if content.get("default") not in (None, [], {}):
        default = content["default"]
        text = f"{text.rstrip('.')} (default: {default if isinstance(default, str) else json.dumps(default)})"
    kinds = [content, *content.get("anyOf", ())]
    choices = tuple(dict.fromkeys(str(value) for kind in kinds for value in kind.get("enum", ())))
    only = all("enum" in kind or kind.get("type") == "null" for kind in kinds if "anyOf" not in kind)
    letter = next((LETTERS[str(kind["type"])] for kind in kinds if str(kind.get("type")) in LETTERS), "")
    return Key(name, text, choices if only and len(choices) <= FEW else (), letter or name.rpartition(".")[2].upper())
