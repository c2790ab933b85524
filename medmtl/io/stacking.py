"""Stacking: which files and volumes are the channels of one image, for networks that take several."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from medmtl.errors import DataError
from medmtl.io.input import Input, stem
from medmtl.io.volume import opened

NUMBERED = re.compile(r"(.+)_(\d{4})")
HOW = "name its files NAME_0000, NAME_0001, ... in one folder, list them, or save one file of four dimensions"


def volumes_in(one: Input) -> int:
    """Number of volumes of an input's file or series, of which headers alone are read.

    Raises:
        DataError: it is missing or broken.
    """
    with opened(one.path, one.kind, one.series) as stored:
        return stored.volumes


def numbered(one: Input) -> tuple[str, int] | None:
    """Case and channel number in the name of a file that follows nnU-Net's naming of channels.

    Returns:
        `case_0001.nii.gz` -> `("case", 1)`; None for other names, and for a DICOM series.
    """
    parts = NUMBERED.fullmatch(stem(one.path)) if one.kind != "dicom" else None
    return None if parts is None else (parts[1], int(parts[2]))


def stacked(found: Iterable[Input]) -> list[Input]:
    """Join files that hold a channel each by their names: `CASE_0000.nii.gz`, `CASE_0001.nii.gz`, ... are `CASE`.

    A file of several volumes is left alone: these are its channels.

    Args:
        found: what a folder holds.

    Returns:
        An input an image, in the order of their first files.
    """
    joined: dict[tuple[object, ...], Input] = {}
    for one in found:
        parts = numbered(one) if _holds_one(one) else None
        if parts is None:
            joined[one.path, one.series] = one
            continue
        case, number = parts
        key = (one.path.parent, case, one.path.name.removeprefix(stem(one.path)))
        before = joined.get(key, replace(one, name=one.name.removesuffix(f"_{number:04d}")))
        joined[key] = replace(before, channels={**before.channels, number: one})
    return list(joined.values())


def without_channel(found: Sequence[Input]) -> list[Input]:
    """Images named by their case alone, where that is clear: `CASE_0000.nii.gz` is `CASE`, as for nnU-Net.

    A name is kept where another channel of its case, or an image of that name, is found too.

    Args:
        found: images of one channel each.
    """
    cases = Counter(parts[0] for parts in map(numbered, found) if parts is not None)
    names = Counter(one.name for one in found)
    renamed = []
    for one in found:
        name, parts = one.name.removesuffix(f"_{0:04d}"), numbered(one)
        clear = parts is not None and parts[1] == 0 and cases[parts[0]] == 1 and not names[name]
        renamed.append(replace(one, name=name) if clear else one)
    return renamed


def parts_of(source: Input, channels: Sequence[int]) -> list[Input]:
    """What is to be read of an image.

    Args:
        source: the image.
        channels: numbers of those that are stacked, in the order of the network; empty for a network of one.

    Returns:
        An input a channel, or the image itself where nothing is stacked. Of a file that cannot be opened it is that
        file: reading it raises the reason.

    Raises:
        DataError: a channel is missing.
    """
    if not channels:
        return [source]
    try:
        there = source.channels or {number: replace(source, volume=number) for number in range(volumes_in(source))}
    except DataError:
        return list(source.channels.values()) or [source]
    if not set(channels) <= there.keys():
        held = f"channel{'s' * (len(there) > 1)} {', '.join(map(str, sorted(there)))}"
        wanted = ", ".join(map(str, channels))
        raise DataError(f"{source.path} comes with {held}, where the network stacks channels {wanted}", fix=HOW)
    return [there[number] for number in channels]


def _holds_one(one: Input) -> bool:
    """Whether a file holds one volume. One that cannot be opened counts as a channel: reading it raises the reason."""
    try:
        return volumes_in(one) == 1
    except DataError:
        return True
