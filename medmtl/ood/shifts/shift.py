"""Shift: one way in which an image can differ from the training images, at five severities where it has some."""

import hashlib
import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from monai.data import MetaTensor

from medmtl.errors import ConfigError
from medmtl.extras import how_to_install

Kind = Literal["covariate", "control", "nonsense"]


class Shift(ABC):
    """A change of an image; one of your own needs a `name` and `change`, and `check_shift` checks it.

    Attributes:
        name: its key in tables and files.
        kind: `covariate`: should be detected; `control`: should change nothing; `nonsense`: not an image of a body.
        label: how figures call it; the name with spaces where it is empty.
        strengths: of severities 1 to 5, rising; empty where severity has no meaning.
        unit: of the strengths.
        moves: whether the organ moves with it, so that the label must follow.
        library: that it needs and that `medmtl` can do without, by its name on PyPI.
    """

    name: str
    kind: Kind = "covariate"
    label: str = ""
    strengths: tuple[float, ...] = ()
    unit: str = ""
    moves: bool = False
    library: str = ""

    @abstractmethod
    def change(self, volume: MetaTensor, strength: float, random: np.random.Generator) -> MetaTensor:
        """Change an image, or its label where the shift moves the organ.

        Args:
            volume: `(1, H, W, D)` on its own grid, on any scale; not to be changed in place.
            strength: of the severity; 0 where severity has no meaning.
            random: decides directions and places, never the strength.

        Returns:
            `(1, H, W, D)`, on the same grid unless `moves`.
        """

    @property
    def severities(self) -> tuple[int, ...]:
        """1 to 5, or 0 alone where severity has no meaning."""
        return tuple(range(1, len(self.strengths) + 1)) or (0,)

    def description(self) -> dict[str, Any]:
        """What pages and figures need, as JSON takes it."""
        label = self.label or self.name.replace("_", " ")
        return {"label": label, "kind": self.kind, "strengths": list(self.strengths), "unit": self.unit}

    def digest(self) -> str:
        """SHA-256 of the definition, as hexadecimal digits: another digest, another result.

        It covers the class, the files that define it and its functions, the values of all attributes, and the version
        of the library that it needs.
        """
        attributes = {key: getattr(self, key) for key in [*inspect.get_annotations(Shift), *vars(self)]}
        functions = [value for value in attributes.values() if inspect.isfunction(value)]
        facts = {
            "class": _path_of(type(self)),
            "attributes": attributes,
            "sources": [_source_of(each) for each in [*self._own_classes(), *functions]],
            "library": version(self.library) if self.library else "",
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=_as_text).encode()).hexdigest()

    def check(self) -> None:
        """Import the library that the shift needs, before hours are spent on others.

        Raises:
            ConfigError: it is not installed.
        """
        if self.library:
            try:
                import_module(self.library)
            except ImportError:
                fix = how_to_install("ood") if self.library == "torchio" else f"pip install {self.library}"
                message = f"shift {self.name} needs {self.library}, which is not installed"
                raise ConfigError(message, fix=fix) from None

    def apply(self, image: MetaTensor, severity: int, seed: int) -> MetaTensor:
        """Shift an image.

        Args:
            image: `(1, H, W, D)` on its own grid, on any scale.
            severity: one of `severities`.
            seed: decides directions and places, never the strength; the same for all severities of a case, so that
                they differ in strength alone.

        Returns:
            `(1, H, W, D)` float32, a new tensor, on the same grid unless `moves`.

        Raises:
            ConfigError: the shift has no such severity, or needs a library that is not installed.
        """
        return self._applied(image.float(), severity, seed)

    def apply_to_label(self, label: MetaTensor, severity: int, seed: int) -> MetaTensor | None:
        """Shift a label along with its image.

        Args:
            label: `(1, H, W, D)` of whole numbers on the grid of the image.
            severity: as for the image.
            seed: as for the image.

        Returns:
            The label on the grid of the shifted image, of the same type; None for nonsense, where nothing is left to
            segment.
        """
        if self.kind == "nonsense":
            return None
        return self._applied(label, severity, seed) if self.moves else label

    def _applied(self, volume: MetaTensor, severity: int, seed: int) -> MetaTensor:
        if severity not in self.severities:
            known = ", ".join(map(str, self.severities))
            raise ConfigError(f"shift {self.name} has no severity {severity}", fix=f"choose among {known}")
        self.check()
        strength = self.strengths[severity - 1] if self.strengths else 0.0
        return self.change(volume, strength, np.random.default_rng(seed))

    def _own_classes(self) -> Iterator[type]:
        """The class and those that it inherits from, up to `Shift`."""
        return (each for each in type(self).__mro__ if issubclass(each, Shift) and each is not Shift)


def _path_of(defined: Any) -> str:
    return f"{defined.__module__}.{defined.__qualname__}"


def _source_of(defined: Any) -> str:
    """Digest of the file that defines a class or function: its helpers and constants are there, too."""
    try:
        return hashlib.sha256(Path(inspect.getfile(defined)).read_bytes()).hexdigest()
    except (TypeError, OSError):  # typed into a notebook
        return inspect.getsource(defined)


def _as_text(value: Any) -> Any:
    if callable(value):
        return _path_of(value)
    return value.tolist() if hasattr(value, "tolist") else repr(value)
