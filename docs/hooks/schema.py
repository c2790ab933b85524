"""JSON Schema of the configurations, from the signatures: editors complete and check YAML by it.

`make schema` writes it. A configuration names its schema in its first line,
`# yaml-language-server: $schema=run.schema.json`.
"""

import collections.abc
import dataclasses
import inspect
import json
import re
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from generated import GENERAL
from pytorch_lightning import Trainer
from signatures import defaults_of, options_of, summary_of

from medmtl.experiment.plan.protocol import Protocol
from medmtl.ood_benchmark.options import Options
from medmtl.runs.wandb import Wandb
from medmtl.training.lightning_cli import TRAINER_DEFAULTS
from medmtl.training.request import SECTIONS

FOLDER = Path(__file__).parents[2] / "configs"
PLAIN = {bool: "boolean", int: "integer", float: "number", str: "string", Path: "string", types.NoneType: "null"}
LISTS = (list, tuple, set, collections.abc.Sequence, collections.abc.Iterable)
A_CLASS: dict[str, Any] = {  # by its short name, or with its options
    "anyOf": [
        {"type": "string"},
        {
            "type": "object",
            "properties": {"class_path": {"type": "string"}, "init_args": {"type": "object"}, "dict_kwargs": {}},
            "required": ["class_path"],
            "additionalProperties": False,
        },
    ]
}


def schemas() -> dict[str, dict[str, Any]]:
    """The schema of each kind of configuration, by the name of its file."""
    sections = {name: of_class(owner) for name, owner in {**SECTIONS, "wandb": Wandb}.items()}
    sections["trainer"] = of_class(Trainer, TRAINER_DEFAULTS)
    general = {
        option.name: {"type": kinds, "description": option.meaning}
        for option, kinds in zip(GENERAL, (["boolean", "integer"], ["string", "null"]), strict=True)
    }
    run = {"type": "object", "properties": general | sections, "additionalProperties": False}
    head = {"$schema": "http://json-schema.org/draft-07/schema#"}
    return {
        "run.schema.json": {**head, "title": "A run of medmtl", **run},
        "experiment.schema.json": {**head, "title": "An experiment of medmtl", **of_class(Protocol)},
        "benchmark.schema.json": {**head, "title": "A benchmark of medmtl", **of_class(Options)},
    }


def of_class(owner: Any, ours: Mapping[str, Any] = types.MappingProxyType({})) -> dict[str, Any]:
    """The schema of a class's arguments; only those of a dataclass are required, since flags may give the others.

    Args:
        owner: the class.
        ours: defaults in place of those that it has and describes.
    """
    parameters, defaults = inspect.signature(owner).parameters, {**defaults_of(owner), **ours}
    properties = {}
    for option in options_of(owner):
        of_it = of_type(parameters[option.name].annotation)
        said = re.sub(r" Default: `[^`]*`\.", "", option.meaning) if option.name in ours else option.meaning
        default = defaults[option.name]
        shown = {} if default is None or not _is_plain(default) else {"default": default}
        properties[option.name] = {**of_it, "description": said, **shown}
    required = [option.name for option in options_of(owner) if option.default == "required"]
    return {
        "type": "object",
        "description": summary_of(owner),
        "properties": properties,
        "additionalProperties": False,
        **({"required": required} if required and dataclasses.is_dataclass(owner) else {}),
    }


def of_type(annotation: Any) -> dict[str, Any]:
    """The schema of a value of a type; anything where the type says too little."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in PLAIN:
        return {"type": PLAIN[annotation]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        return {"anyOf": sorted(map(of_type, arguments), key=json.dumps)}  # their order depends on earlier imports
    if origin is tuple and ... not in arguments:
        return {"type": "array", "items": of_type(arguments[0]), "minItems": len(arguments), "maxItems": len(arguments)}
    if origin in LISTS:
        return {"type": "array", "items": of_type(arguments[0])}
    if origin in (dict, collections.abc.Mapping):
        return {"type": "object", "additionalProperties": of_type(arguments[1])}
    if dataclasses.is_dataclass(annotation):
        return of_class(annotation)
    if (annotation is not Any and isinstance(annotation, type)) or origin is collections.abc.Callable:
        return A_CLASS
    return {}


def _is_plain(value: Any) -> bool:
    """Whether JSON has such a value."""
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str) or value == {}


def text(schema: dict[str, Any]) -> str:
    """A schema as its file holds it."""
    return json.dumps(schema, indent=1) + "\n"


if __name__ == "__main__":
    for name, schema in schemas().items():
        (FOLDER / name).write_text(text(schema))
