"""Options of a class, read from its signature and docstring: name, type, default, unit and meaning."""

import dataclasses
import inspect
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from docstring_parser import parse

# Unit of a number -> how its description says so.
UNITS = {
    "mm": r"\bin mm\b|, mm\b|^mm\b|\bmm around\b",
    "Hounsfield units": r"Hounsfield units",
    "voxels": r"voxels a side|\bin voxels\b|^voxels\b",
    "ml": r"\bin ml\b|^ml\b",
    "seconds": r"\bin seconds\b|^seconds\b",
    "nats": r"\bnats\b",
    "0 to 1": r"^share of|^probability|\bin \[0, 1\]|, 0 to 1|\bin \(0, 1[\])]|^up to this p-value",
}
ENDS = {"_mm": "mm", "_ml": "ml", "seconds": "seconds"}  # of the names of numbers


class Option(NamedTuple):
    """One option.

    Attributes:
        name: its key.
        type: of its value, as text.
        default: as text; `required` where there is none.
        unit: of its value; empty where it has none.
        meaning: what its docstring says.
    """

    name: str
    type: str
    default: str
    unit: str
    meaning: str


def options_of(owner: Any) -> list[Option]:
    """The options of a class, those of its base classes included where they are passed on.

    Args:
        owner: a class whose docstring describes its arguments in Google style.
    """
    described, defaults = _described(owner), defaults_of(owner)
    found = []
    for name, parameter in inspect.signature(owner).parameters.items():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        default = defaults[name]
        kind, meaning = type_text(parameter.annotation), described.get(name, "")
        written = "required" if default is parameter.empty else _default_text(default)
        found.append(Option(name, kind, written, unit_of(name, kind, meaning), meaning))
    return found


def defaults_of(owner: Any) -> dict[str, Any]:
    """The default of each argument, `Parameter.empty` where it has none."""
    factories = {
        field.name: field.default_factory()
        for field in (dataclasses.fields(owner) if dataclasses.is_dataclass(owner) else ())
        if field.default_factory is not dataclasses.MISSING
    }
    return {
        name: factories.get(name, parameter.default) for name, parameter in inspect.signature(owner).parameters.items()
    }


def fields_of(owner: Any) -> list[Option]:
    """The fields of a record: a dataclass or a named tuple whose docstring has a section of attributes."""
    described = _described(owner)
    found = []
    for name, annotation in inspect.get_annotations(owner).items():
        kind, meaning = type_text(annotation), described.get(name, "")
        found.append(Option(name, kind, "", unit_of(name, kind, meaning), meaning))
    return found


def summary_of(owner: Any) -> str:
    """The first sentence of a docstring."""
    return parse(inspect.getdoc(owner) or "").short_description or ""


def table(options: Iterable[Option], columns: Iterable[str] = Option._fields) -> str:
    """Options as a Markdown table; a column that is empty everywhere is left out."""
    rows = list(options)
    shown = [column for column in columns if any(getattr(row, column) for row in rows)]
    lines = ["| " + " | ".join(shown) + " |", "|---" * len(shown) + "|"]
    for row in rows:
        cells = [_cell(getattr(row, column), code=column in ("name", "type", "default")) for column in shown]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def type_text(annotation: Any) -> str:
    """A type as a reader writes it: without the modules of its parts."""
    if annotation is inspect.Parameter.empty:
        return ""
    plain = isinstance(annotation, type) and not hasattr(annotation, "__args__")
    text = annotation.__name__ if plain else str(annotation)
    text = re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", text).replace("NoneType", "None")
    return re.sub(r"Optional\[(.+)\]$", r"\1 | None", text)


def unit_of(name: str, kind: str, meaning: str) -> str:
    """The unit of a number, from its description or the end of its name; empty where it has none."""
    if not re.search(r"\b(int|float)\b", kind):
        return ""
    said = next((unit for unit, pattern in UNITS.items() if re.search(pattern, meaning)), "")
    return said or next((unit for end, unit in ENDS.items() if name.endswith(end)), "")


def _described(owner: Any) -> dict[str, str]:
    """Name -> description, of the arguments and attributes that a class and its `__init__` describe."""
    found = {}
    for documented in (owner, owner.__init__):
        for each in parse(inspect.getdoc(documented) or "").params:
            found.setdefault(each.arg_name.rstrip(":"), _plain(each.description or ""))
    return found


def _plain(text: str) -> str:
    """A description on one line, without the markup of reStructuredText."""
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", text.replace("``", "`"))
    return " ".join(re.sub(r"`([^`<]+?) ?<[^`>]+>`_+", r"\1", text).split())


def _default_text(value: Any) -> str:
    return value if isinstance(value, str) and value else repr(value)


def _cell(text: str, code: bool) -> str:
    if code and text and text != "required":
        return f"`{text}`"  # in which a bar ends no cell
    return text.replace("|", "\\|").replace("<", "&lt;")
