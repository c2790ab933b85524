"""Which classes a configuration from a file of unknown origin may name: checked as plain data, before it is built.

A command line and its `--config` are the user's own and may name any class. The configuration inside a checkpoint or a
run folder may come from anyone: of what it names only classes of known packages are imported, no functions, and only
where a network, a detector or a layout is expected.
"""

import dataclasses
import inspect
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from medmtl.errors import RunError

# Where a class may come from: to test and predict, and to resume a training.
TO_USE = ("medmtl", "monai.networks", "torch.nn")
TO_TRAIN = (*TO_USE, "monai.losses", "monai.optimizers", "torch.optim", "pytorch_lightning.cli")
# These load weights or code by a name that the configuration gives, unpickle a file, or make code from layers' names.
REFUSED = (
    "monai.losses.perceptual",
    "monai.networks.nets.cell_sam_wrapper",
    "monai.networks.nets.netadapter",
    "monai.networks.nets.torchvision_fc",
    "monai.networks.nets.transchex",
)
FIX = "add --trust (in Python: trust=True) if you trust its origin"
SPEC = {"class_path", "init_args"}
# Keys and words with a meaning to the parser, which the value of an option never holds.
RESERVED = (*SPEC, "dict_kwargs", "__path__")
PLAIN = (bool, int, float, str, NoneType, Path, timedelta)
WORD = re.compile(r"[\w+-]{0,80}")

# Name of each option and its type; only those are accepted.
Hints = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Checker:
    """Checks a configuration as plain data, and imports no module outside the packages.

    Attributes:
        where: the file, for messages.
        packages: where classes may come from.
    """

    where: str
    packages: Sequence[str] = TO_USE

    def section(self, name: str, values: Any, owner: Any) -> dict[str, Any]:
        """A section of the configuration, as it may be built.

        Args:
            name: its key.
            values: what the file holds there.
            owner: the class whose arguments they are.

        Returns:
            A copy, in which networks do not fetch pretrained weights: the checkpoint has its own.

        Raises:
            RunError: a class or value that is not accepted; names it and its key.
        """
        return self._options(values, hints_of(owner), name)

    def _options(self, values: Any, hints: Hints, key: str) -> dict[str, Any]:
        if not isinstance(values, Mapping):
            self.refuse(values, key)
        for name in values:
            if name not in hints:
                self.refuse(name, key)
        return {name: self.value(value, hints[name], f"{key}.{name}") for name, value in values.items()}

    def value(self, value: Any, hint: Any, key: str) -> Any:
        """A value of an option, as it may be built.

        Args:
            value: what the file holds.
            hint: the type of the option.
            key: of the option.

        Raises:
            RunError: see `section`.
        """
        if value is None:
            return value
        if is_plain(hint):
            return self._without_specs(value, key)
        members = [each for each in _members(hint) if each is not NoneType]
        if len(members) > 1:
            return self._loose(value, key)
        only, origin, args = members[0], get_origin(members[0]), get_args(members[0])
        if dataclasses.is_dataclass(only):
            return self._options(value, hints_of(only), key)
        if origin is Callable:
            returned = tuple(each for each in _members(args[1]) if inspect.isclass(each)) if args else ()
            return self._spec(value, returned, key) if returned else self._loose(value, key)
        if inspect.isclass(origin) and issubclass(origin, Mapping):
            if not isinstance(value, Mapping):
                self.refuse(value, key)
            return {self._name(name, key): self.value(each, args[1], f"{key}.{name}") for name, each in value.items()}
        if inspect.isclass(origin) and issubclass(origin, Sequence):
            if not isinstance(value, list):
                self.refuse(value, key)
            return [self.value(each, args[0], f"{key}.{number}") for number, each in enumerate(value)]
        if inspect.isclass(only):
            return self._spec(value, (only,), key)
        return self._loose(value, key)

    def _spec(self, value: Any, bases: tuple[type, ...], key: str) -> dict[str, Any]:
        """A class with its arguments, which must be a subclass of one of `bases`."""
        spec = {"class_path": value} if isinstance(value, str) else value
        if not isinstance(spec, Mapping) or not set(spec) <= SPEC or not isinstance(spec.get("class_path"), str):
            self.refuse(value, key)
        found = self.resolve(spec["class_path"], bases, key)
        given = spec.get("init_args") or {}
        if not isinstance(given, Mapping):
            self.refuse(given, f"{key}.init_args")
        if _within(found.__module__, ("medmtl",)):
            arguments = self._options(given, hints_of(found), key)
        else:
            arguments = {
                self._word(name, key): self._loose(each, f"{key}.{name}", bases) for name, each in given.items()
            }
        for name, parameter in inspect.signature(found).parameters.items():
            if name.startswith("pretrained"):
                arguments[name] = False if isinstance(parameter.default, bool) else None
        return {"class_path": spec["class_path"], "init_args": arguments} if arguments else dict(spec)

    def resolve(self, path: str, bases: tuple[type, ...], key: str) -> type:
        """The class that a path names, imported only from the packages.

        Raises:
            RunError: it is elsewhere, no class, or not one of `bases`.
        """
        module, _, name = path.rpartition(".")
        if not all(part.isidentifier() for part in path.split(".")) or not _within(module, self.packages):
            self.refuse(path, key)
        try:
            found = getattr(import_module(module), name)
        except (ImportError, AttributeError):
            self.refuse(path, key)
        allowed = inspect.isclass(found) and _within(found.__module__, self.packages)
        if not allowed or _within(found.__module__, REFUSED) or not issubclass(found, bases):
            self.refuse(path, key)
        return found

    def _loose(self, value: Any, key: str, bases: tuple[type, ...] = ()) -> Any:
        """A value whose option may take anything: numbers, single words, classes where there are `bases`, and these."""
        if isinstance(value, Mapping):
            if "class_path" in value:
                return self._spec(value, bases, key) if bases else self.refuse(value, key)
            return {self._word(name, key): self._loose(each, f"{key}.{name}", bases) for name, each in value.items()}
        if isinstance(value, list):
            return [self._loose(each, f"{key}.{number}", bases) for number, each in enumerate(value)]
        # A path of a class has a dot, and the name of a file would be read as a part of the configuration.
        if isinstance(value, str) and (not WORD.fullmatch(value) or Path(value).is_file()):
            self.refuse(value, key)
        return value

    def _without_specs(self, value: Any, key: str) -> Any:
        """A value of an option that takes text, numbers and collections of them."""
        if isinstance(value, Mapping):
            if "class_path" in value:
                self.refuse(value, key)
            return {self._name(name, key): self._without_specs(each, f"{key}.{name}") for name, each in value.items()}
        if isinstance(value, list):
            return [self._without_specs(each, f"{key}.{number}") for number, each in enumerate(value)]
        if isinstance(value, str) and any(word in value for word in RESERVED):
            self.refuse(value, key)
        return value

    def _name(self, name: Any, key: str) -> Any:
        if any(part in RESERVED for part in str(name).split(".")):  # a dot may stand for one level more
            self.refuse(name, key)
        return name

    def _word(self, name: Any, key: str) -> Any:
        """Name of an argument or layer; what traces a network writes its names into source text, and runs that."""
        if not isinstance(name, str) or not WORD.fullmatch(name):
            self.refuse(name, key)
        return self._name(name, key)

    def refuse(self, value: Any, key: str) -> NoReturn:
        """Raise the error for a value that is not accepted."""
        named = value.get("class_path", value) if isinstance(value, Mapping) else value
        raise RunError(f"{self.where} sets {key} to {str(named)[:80]!r}, which is not used from a file", fix=FIX)


def hints_of(owner: Any) -> dict[str, Any]:
    """Arguments of a class, and the type of each; Any where none is written."""
    hints = get_type_hints(owner.__init__)
    parameters = inspect.signature(owner.__init__).parameters.values()
    named = [each for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    return {each.name: hints.get(each.name, Any) for each in named if each.name != "self"}


def is_plain(hint: Any) -> bool:
    """Whether a type holds nothing but text, numbers and collections of them."""
    if hint in PLAIN or hint is Ellipsis or get_origin(hint) is Literal:
        return True
    origin, args = get_origin(hint), get_args(hint)
    collection = origin in (Union, UnionType) or (inspect.isclass(origin) and issubclass(origin, Iterable))
    return collection and bool(args) and all(is_plain(each) for each in args)


def use_current_folder(given: Iterable[str] | None = None) -> None:
    """Find modules in the current folder, after all that are installed, unless Python was started not to (`python -P`).

    Args:
        given: what the user wrote on the command line and in configurations: modules that it names are found there, and
            what those import. None: all modules.
    """
    here = str(Path.cwd())
    if sys.flags.safe_path or here in sys.path or "" in sys.path:
        return
    if given is None:
        sys.path.append(here)
        return
    names = {found for text in given for found in re.findall(r"\b([A-Za-z_]\w*)\.[A-Za-z_]", text)}
    if names:
        sys.meta_path.append(_NamedModules(here, names))


class _NamedModules(MetaPathFinder):
    """Finds modules of a folder by name; a file beside them does not stand in for a library that is not installed."""

    def __init__(self, folder: str, names: Collection[str]) -> None:
        self.folder = folder
        self.names = names

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is not None or fullname not in self.names:
            return None
        found = PathFinder.find_spec(fullname, [self.folder], target)
        if found is not None and self.folder not in sys.path:
            sys.path.append(self.folder)  # for what it imports, and for processes that are started
        return found


def _members(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _within(module: str, packages: Iterable[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)
