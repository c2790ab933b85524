"""Classes: what the label values of a task mean, and how a label is held in memory."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from medmtl.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

Values = TypeVar("Values", bound=Collection[int])

ORGAN = "organ"  # the class of a task that names an organ of interest
RESERVED = ("foreground", "mean")  # in the names of metrics
MARKUP = "/[]$\\;"  # means something in the names of metrics, tables, figures or headers
LONGEST = 64  # letters of a name, as in DICOM
MOST = 254  # parts of a label in memory, where 255 is unknown


@dataclass(frozen=True)
class Classes:
    """The classes of a task.

    A label is held as numbers of parts: 0 is background, and part i the label values that belong to the same classes.
    Classes that exclude each other are a part each, in their order. Classes that overlap, as the regions of nnU-Net
    do, have parts in common.

    Attributes:
        values: class -> label values in the files of the dataset.
        merged: whether this is an organ of interest, whose masks are written as 1.
        preferred: class -> its label values in the order in which a mask would rather have them; sorted without.

    Example:
        >>> tumour = Classes({"whole": frozenset({1, 2, 3}), "core": frozenset({2, 3})})
        >>> tumour.overlap, [sorted(part) for part in tumour.parts], tumour.parts_of("whole"), tumour.written
        (True, [[1], [2, 3]], (1, 2), (1, 2))
    """

    values: Mapping[str, frozenset[int]]
    merged: bool = False
    preferred: Mapping[str, Sequence[int]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Check that names can be part of those of metrics, and that each class can be written.

        Raises:
            ConfigError: one cannot, or there are too many.
        """
        for name in self.values:
            if not usable(name):
                raise ConfigError(f"a class cannot be named {name!r:.99}", fix="use `classes: {NAME: VALUE}`")
        if len(self.parts) > MOST:
            raise ConfigError(f"a task has {len(self.parts)} classes", fix=f"use {MOST} at most")
        for place, (name, own) in enumerate(self.values.items()):
            if own <= self._later(place):
                raise ConfigError(f"class {name} would be hidden by later ones", fix="list the larger regions first")

    @classmethod
    def of_organ(cls, values: Iterable[int]) -> "Classes":
        """The one class of an organ of interest."""
        return cls({ORGAN: frozenset(values)}, merged=True)

    @classmethod
    def of_lists(cls, values: Mapping[str, Sequence[int]]) -> "Classes":
        """Classes by their label values, the one that masks would rather have first."""
        return cls({name: frozenset(own) for name, own in values.items()}, preferred=values)

    @property
    def lists(self) -> dict[str, list[int]]:
        """What `of_lists` takes: the label value of a mask, and the others of each class."""
        own = zip(self.values.items(), self.written, strict=True)
        return {name: [value, *sorted(values - {value})] for (name, values), value in own}

    @property
    def names(self) -> tuple[str, ...]:
        """The classes in their order; where they overlap, a later one is written over an earlier one."""
        return tuple(self.values)

    @cached_property
    def foreground(self) -> frozenset[int]:
        """The label values of all classes."""
        return frozenset().union(*self.values.values())

    @cached_property
    def overlap(self) -> bool:
        """Whether a label value belongs to several classes."""
        return sum(map(len, self.values.values())) > len(self.foreground)

    @cached_property
    def parts(self) -> tuple[frozenset[int], ...]:
        """The label values of each part, from part 1 on."""
        found: dict[tuple[bool, ...], set[int]] = {}
        for own in self.values.values():
            for value in sorted(own):
                found.setdefault(tuple(value in other for other in self.values.values()), set()).add(value)
        return tuple(frozenset(part) for part in found.values())

    def parts_of(self, name: str) -> tuple[int, ...]:
        """The numbers of the parts that make up a class."""
        return tuple(number for number, part in enumerate(self.parts, 1) if part <= self.values[name])

    def mask(self, label: "Tensor", name: str) -> "Tensor":
        """Where a label, numbers of parts, shows a class: bool, of its shape."""
        first, *others = self.parts_of(name)
        found: Tensor = label == first
        for part in others:
            found |= label == part
        return found

    @cached_property
    def written(self) -> tuple[int, ...]:
        """The label value that a predicted mask has in each class.

        It is the first value of the class, as preferred, that no later class has. Of an organ of interest it is 1.
        Regions that overlap without one lying in the other have voxels of the later alone written as common ones.
        """
        if self.merged:
            return (1,)
        found = []
        for place, name in enumerate(self.names):
            own, later = self.values[name], self._later(place)
            found.append(next(value for value in (*self.preferred.get(name, ()), *sorted(own)) if value not in later))
        return tuple(found)

    def _later(self, place: int) -> frozenset[int]:
        """The label values of the classes after one."""
        return frozenset().union(*list(self.values.values())[place + 1 :])

    @cached_property
    def written_parts(self) -> tuple[int, ...]:
        """The number of the part that a predicted mask has in each class."""
        if self.merged:
            return (1,)
        return tuple(
            next(number for number, part in enumerate(self.parts, 1) if value in part) for value in self.written
        )

    def merge(self) -> "Classes":
        """All classes as one organ of interest."""
        return self if self.merged else Classes.of_organ(self.foreground)


def usable(name: str) -> bool:
    """Whether a class can have a name."""
    plain = name.isprintable() and not set(name) & set(MARKUP)
    return plain and name not in RESERVED and bool(name.strip()) and len(name) <= LONGEST


def larger_first(values: Mapping[str, Values]) -> dict[str, Values]:
    """Classes in the order in which they can be written over each other: as they are, unless they overlap."""
    overlap = sum(map(len, values.values())) > len(frozenset().union(*values.values()))
    return dict(sorted(values.items(), key=lambda item: -len(item[1]) if overlap else 0))
