"""JSON Schema of the record of an exported folder, from the classes that it is read into."""

import re
from dataclasses import MISSING, fields, is_dataclass
from inspect import getdoc
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from medmtl.export.record import Record

PLAIN: dict[Any, str] = {bool: "boolean", int: "integer", float: "number", str: "string", NoneType: "null"}
DIGEST = {"type": "string", "description": "SHA-256 of all else, as JSON without spaces and with its keys sorted"}


def record_schema() -> dict[str, Any]:
    """The schema of the whole file."""
    found = _of(Record)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What an exported folder of medmtl says of itself",
        **found,
        "properties": {"digest": DIGEST, **found["properties"]},
        "required": ["digest", *found["required"]],
    }


def _of(kind: Any) -> dict[str, Any]:
    if kind is Any:
        return {}
    if kind in PLAIN:
        return {"type": PLAIN[kind]}
    if is_dataclass(kind):
        return _of_record(kind)
    origin, args = get_origin(kind), get_args(kind)
    if origin is Literal:
        return {"enum": list(args)}
    if origin in (Union, UnionType):
        return {"anyOf": [_of(each) for each in args]}
    if origin is dict:
        return {"type": "object", "additionalProperties": _of(args[1])}
    if origin is tuple and Ellipsis not in args:
        return {"type": "array", "prefixItems": [_of(each) for each in args], "minItems": len(args), "items": False}
    return {"type": "array", "items": _of(args[0])}


def _of_record(kind: Any) -> dict[str, Any]:
    types, meanings = get_type_hints(kind), _meanings(kind)
    return {
        "type": "object",
        "properties": {
            each.name: {**_of(types[each.name]), "description": meanings[each.name]} for each in fields(kind)
        },
        "required": [each.name for each in fields(kind) if each.default is MISSING],
        "additionalProperties": False,
    }


def _meanings(kind: Any) -> dict[str, str]:
    """What the docstring says of each attribute."""
    text = (getdoc(kind) or "").partition("Attributes:")[2]
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", text, re.MULTILINE)
    return {name: " ".join(meaning.split()) for name, meaning in found}
