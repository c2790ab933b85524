"""Read one case and describe its content and errors; run in parallel, so it imports no torch."""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import aff2axcodes
from numpy.typing import NDArray

from medmtl.data.case import Case
from medmtl.data.label import check_declared, check_one_volume, label_of
from medmtl.data_tools.grids import apart_mm, compare, reordered
from medmtl.errors import DataError
from medmtl.io.stored import cause_of_shift, check_grid, check_largest
from medmtl.io.volume import Volume, opened
from medmtl.report.data.thumbnail import thumbnail
from medmtl.report.orientation import to_ras
from medmtl.results.dataset import CaseFacts, Finding, Intensity, Severity

PIECE = 1 << 20  # values


@dataclass(frozen=True)
class Request:
    """A case to examine, and its dataset.

    Attributes:
        dataset: the task or folder.
        root: its folder, which messages leave out.
        case: the case.
        declared: all label values that may occur; None if any may.
    """

    dataset: str
    root: Path
    case: Case
    declared: frozenset[int] | None


@dataclass
class _Findings:
    """Collects the findings of one case."""

    request: Request
    found: list[Finding] = field(default_factory=list)

    def add(self, severity: Severity, rule: str, message: str, fix: str = "") -> None:
        request = self.request
        text = message.replace(f"{request.root}/", "")
        self.found.append(Finding(severity, rule, request.dataset, request.case.name, text, fix))

    def unreadable(self, error: DataError) -> None:
        self.add("error", "unreadable", error.what, error.fix)


def look_at(request: Request) -> tuple[CaseFacts, list[Finding]]:
    """Read a case, every channel and every label of it.

    A case gets an error where training would refuse it; an image of one value gets one without a label, too.

    Returns:
        Its content, and the findings of this case alone; comparisons with other cases are made elsewhere.
    """
    case, findings = request.case, _Findings(request)
    facts = CaseFacts(
        dataset=request.dataset,
        case=case.name,
        patient=case.patient,
        part="training" if case.labels else "test",
        images=tuple(_within(request.root, path) for path in case.images),
        labels=tuple(_within(request.root, label.path) for label in case.labels),
    )
    try:
        first, *others = [_image(path, findings) for path in case.images]
    except DataError as error:
        findings.unreadable(error)
        return facts, findings.found
    for path, other in zip(case.images[1:], others, strict=True):
        if compare(other, first) != "same":
            findings.add("error", "channels", f"{path} is on another grid than the first channel", "resample it")
    channels = [channel for volume in (first, *others) for channel in _channels(volume)]
    measured = [_measure(number, channel, findings) for number, channel in enumerate(channels)]
    label = _label(request, first, findings)
    volumes_ml = {} if label is None else _volumes_ml(label)
    facts = replace(
        facts,
        shape=first.shape[:3],
        spacing=tuple(round(float(size), 4) for size in voxel_sizes(first.affine)),
        axes="".join(map(str, aff2axcodes(first.affine))),
        dtype=str(first.voxels.dtype),
        intensity=tuple(intensity for intensity, _ in measured),
        image_digests=tuple(digest for _, digest in measured),
        volumes_ml=volumes_ml,
        label_digest=_digest(label.voxels) if label is not None and volumes_ml else "",
        thumbnail=_draw(Volume(channels[0], first.affine), label),
    )
    return facts, findings.found


def _within(root: Path, path: Path) -> str:
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def _image(path: Path, findings: _Findings) -> Volume:
    """Read an image with all its channels.

    Raises:
        DataError: it cannot be measured at all; voxels that are not finite are counted as a finding.
    """
    with opened(path) as stored:
        check_grid(stored.where, stored.affine, stored.shape)
        voxels = stored.as_stored()
    for warning in stored.warnings:
        findings.add("warning", "header", f"{path}: {warning}", "look at its header")
    with np.errstate(over="ignore", invalid="ignore"):
        broken = voxels.size - int(np.isfinite(voxels.astype(np.float32)).sum()) if voxels.dtype.kind == "f" else 0
    if broken:
        text = f"{path} holds {broken:,} voxels of {voxels.size:,} that are not finite"
        findings.add("error", "not-finite", text, "replace them by numbers")
    else:
        check_largest(str(path), max(-float(voxels.min()), float(voxels.max())))
    return Volume(voxels, stored.affine, stored.warnings)


def _channels(image: Volume) -> list[NDArray[Any]]:
    voxels = image.voxels
    return [voxels] if voxels.ndim == 3 else [voxels[..., channel] for channel in range(voxels.shape[3])]


def _measure(number: int, channel: NDArray[Any], findings: _Findings) -> tuple[Intensity, str]:
    """Intensities of a channel, and the digest of its values in order, which no other storage order changes."""
    ordered = np.sort(channel if channel.dtype.kind != "f" else channel[np.isfinite(channel)], axis=None)
    if not ordered.size:
        return Intensity(*(float("nan"),) * 5), ""
    shares = (0, 0.01, 0.5, 0.99, 1)
    intensity = Intensity(*(float(ordered[round(share * (len(ordered) - 1))]) for share in shares))
    if intensity.minimum == intensity.maximum:
        text = f"channel {number} is {intensity.minimum:g} in all voxels: there is nothing to segment"
        findings.add("error", "constant", text, "check how it was saved")
        return intensity, ""
    return intensity, _digest(ordered)


def _digest(voxels: NDArray[Any]) -> str:
    """Of values as float32, whatever type they are stored as; piece by piece, to need no second copy."""
    digest = hashlib.sha256()
    for piece in np.array_split(voxels, voxels.size // PIECE + 1):
        with np.errstate(over="ignore"):  # of values that are an error by themselves
            digest.update(np.ascontiguousarray(piece, dtype="<f4").data)
    return digest.hexdigest()


def _label(request: Request, image: Volume, findings: _Findings) -> Volume | None:
    """The label values in the order of the image's voxels; None without a label that fits on it."""
    whole = None
    for file in request.case.labels:
        rule = "unreadable"
        try:
            with opened(file.path) as stored:
                rule = "shape" if stored.volumes > 1 else rule
                check_one_volume(stored)
                read = Volume(stored.as_stored(), stored.affine, stored.warnings)
            rule = "undeclared"
            label = label_of(file, read.voxels)
            check_declared(file, label, request.declared)
        except DataError as error:
            findings.add("error", rule, error.what, error.fix)
            continue
        voxels = _on_grid(file.path, replace(read, voxels=label.values), image, findings)
        for note in label.notes:
            findings.add("warning", "values", f"{file.path}: {note}", "save whole numbers")
        if voxels is None:
            continue
        whole = voxels if whole is None else np.where(voxels > 0, voxels, whole)
    if whole is None:
        return None
    if not (whole > 0).any():
        findings.add("warning", "empty", "the label is empty", "correct it, unless the organ is truly absent")
    return Volume(whole, image.affine)


def _on_grid(path: Path, label: Volume, image: Volume, findings: _Findings) -> NDArray[Any] | None:
    """The voxels of a label as they lie on the image's; None where they cannot. What differs is noted."""
    likeness = compare(label, image)
    if likeness == "shape":
        own, wanted = (" x ".join(map(str, shape)) for shape in (label.shape, image.shape[:3]))
        text = f"{path} has {own} voxels, its image {wanted}"
        findings.add("error", "shape", text, "resample one to the other's grid")
        return None
    if likeness == "affine":
        text = f"{path} has another affine than its image: their voxels lie up to {apart_mm(label, image):.3g} mm apart"
        text += cause_of_shift(label.warnings, image.warnings)
        findings.add("error", "affine", text, "if the outline fits, --fix-affine DIR takes over the image's")
    if likeness == "reordered":
        stored, wanted = ("".join(map(str, aff2axcodes(each.affine))) for each in (label, image))
        text = f"{path} is stored in the order {stored}, its image in {wanted}; otherwise the grid is the same"
        findings.add("error", "affine", text, "--fix-affine DIR writes it in the image's order")
        return reordered(label, image).voxels
    return label.voxels


def _volumes_ml(label: Volume) -> dict[int, float]:
    millilitres = abs(np.linalg.det(label.affine[:3, :3])) / 1000
    inside = (label.voxels > 0) & np.isfinite(label.voxels)
    values, counts = np.unique(label.voxels[inside], return_counts=True)
    return {int(value): float(count * millilitres) for value, count in zip(values, counts, strict=True)}


def _draw(image: Volume, label: Volume | None) -> bytes:
    """A picture of an image and of its label, which lies on the same grid."""
    volumes = [image.voxels] if label is None else [image.voxels, label.voxels]
    turned, spacing = to_ras(image.affine, *volumes)
    return thumbnail(turned[0], None if label is None else turned[1], spacing)
