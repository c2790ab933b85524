"""Records read back from JSON: every value checked against the type that the record declares for it."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Kind = TypeVar("Kind")
_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", NoneType: "null"}


def typed(kind: type[Kind], value: Any, key: str = "it") -> Kind:
    """A value as JSON holds it, as a value of a type.

    Args:
        kind: a dataclass, a mapping, list, tuple or `Literal`, a plain type, `Path`, or a union of these.
        value: what JSON gave.
        key: where it lies, for the message.

    Returns:
        The value; numbers, lists and paths are of the kind that is asked for.

    Raises:
        ValueError: one line that names the key, what it is and what it has to be.
    """
    return _read(kind, value, key)


def _read(kind: Any, value: Any, key: str) -> Any:
    if kind is Any:
        return value
    if is_dataclass(kind):
        return _record(kind, value, key)
    origin, args = get_origin(kind) or kind, get_args(kind)
    if origin in (Union, UnionType):
        return _one_of(args, value, key)
    if origin is Literal:
        if not any(value == each and type(value) is type(each) for each in args):
            raise _wrong(key, f"one of {', '.join(map(str, args))}", value)
        return value
    if origin is float:
        return _number(value, key)
    if origin is Path:
        return Path(_read(str, value, key))
    if origin in (dict, Mapping):
        return _mapping(args, value, key)
    if origin is tuple:
        return _tuple(args, value, key)
    if origin in (list, Sequence):
        each = args[0] if args else Any
        return [_read(each, item, f"{key}[{number}]") for number, item in enumerate(_list(value, key))]
    if type(value) is not origin:
        raise _wrong(key, _WORDS[origin], value)
    return value


def _record(kind: Any, value: Any, key: str) -> Any:
    if not isinstance(value, dict):
        raise _wrong(key, "an object", value)
    types = get_type_hints(kind)
    unknown = sorted(map(str, set(value) - {each.name for each in fields(kind)}))
    if unknown:
        raise ValueError(f"{key} has {unknown[0]!r}, which it cannot have")
    given = {}
    for each in fields(kind):
        if each.name in value:
            given[each.name] = _read(types[each.name], value[each.name], each.name)
        elif each.default is MISSING and each.default_factory is MISSING:
            raise ValueError(f"{key} lacks {each.name!r}")
    return kind(**given)


def _one_of(kinds: Sequence[Any], value: Any, key: str) -> Any:
    reasons = []
    for kind in kinds:
        try:
            return _read(kind, value, key)
        except ValueError as error:
            reasons.append(str(error))
    raise ValueError(reasons[0])


def _mapping(kinds: Sequence[Any], value: Any, key: str) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise _wrong(key, "an object", value)
    kind = kinds[1] if kinds else Any
    return {name: _read(kind, item, f"{key}.{name}") for name, item in value.items()}


def _tuple(kinds: Sequence[Any], value: Any, key: str) -> tuple[Any, ...]:
    items = _list(value, key)
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = [kinds[0]] * len(items)
    if len(items) != len(kinds):
        raise _wrong(key, f"a list of {len(kinds)}", value)
    return tuple(_read(kind, item, f"{key}[{n}]") for n, (kind, item) in enumerate(zip(kinds, items, strict=True)))


def _list(value: Any, key: str) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise _wrong(key, "a list", value)
    return list(value)


def _number(value: Any, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(key, "a number", value)
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{key} is too large for a number") from None


def _wrong(key: str, wanted: str, value: Any) -> ValueError:
    return ValueError(f"{key} is {str(value)[:40]!r}, and has to be {wanted}")
