"""DICOM series of a folder, read by medmtl, SimpleITK, highdicom and dcm2niix: which are read, and whether they agree.

    python tests/benchmarks/dicom.py FOLDER [--rows rows.csv]

A series counts as one volume where SimpleITK reads it with even slices at a place each, or highdicom reads it as a
volume. Voxels and affine are compared on the axes nearest to the patient's, so that no tool's choice of storage order
counts. Files of one series are taken together folder by folder.
"""

import argparse
import contextlib
import csv
import logging
import re
import subprocess
import sys
import tempfile
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import SimpleITK
from numpy.typing import NDArray

from medmtl.errors import DataError
from medmtl.io.dicom.files import is_dicom, is_image
from medmtl.io.inputs import find_inputs
from medmtl.io.reader import read
from medmtl.io.volume import opened

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
AFFINE_MM = 1e-2
SECONDS = 300
ROUNDING = 0.501  # dcm2niix interpolates in whole numbers


class Grid(NamedTuple):
    """A volume on axes nearest to the patient's."""

    voxels: NDArray
    affine: NDArray


class Row(NamedTuple):
    """What became of a series."""

    folder: str
    files: int
    kind: str
    one_volume: bool
    volumes: int
    itk: str
    dcm2niix: str
    notes: str
    refused: str


def grouped(folder: Path) -> Iterator[tuple[Path, list[Path], list[pydicom.Dataset]]]:
    """The images of a folder tree by folder and series."""
    for place in sorted({path.parent for path in folder.rglob("*")}):
        found = defaultdict(list)
        for path in sorted(place.iterdir()):
            if not path.is_file() or not is_dicom(path):
                continue
            try:
                header = pydicom.dcmread(path, stop_before_pixels=True)
            except Exception as error:
                print(f"{path} cannot be read by pydicom: {error}", file=sys.stderr)
                continue
            if is_image(header) and "SeriesInstanceUID" in header:
                found[header.SeriesInstanceUID].append((path, header))
        for files in found.values():
            yield place, [path for path, _ in files], [header for _, header in files]


def canonical(voxels: NDArray, affine: NDArray) -> Grid:
    image = nib.as_closest_canonical(nib.Nifti1Image(np.asarray(voxels, np.float64), affine))
    return Grid(image.get_fdata(), image.affine)


def ours(folder: Path) -> tuple[list[Grid], tuple[str, ...]]:
    """All volumes of a series, and what is said about the first, which passes all checks."""
    (source,) = find_inputs(folder)
    scan = read(source)
    first = canonical(scan.image[0].numpy(), scan.image.affine.numpy())
    with opened(source.path, source.kind, source.series) as stored:
        further = [stored.part(volume, slice(None)) for volume in range(1, stored.volumes)]
    return [first, *(canonical(each, scan.image.affine.numpy()) for each in further)], scan.warnings


def itk(folder: Path, files: list[Path], headers: list[pydicom.Dataset]) -> Grid | None:
    """The series as SimpleITK reads it; None where that is no volume."""
    places = places_of(headers)
    if len(set(places)) < max(len(places), 2):
        return None
    reader = SimpleITK.ImageSeriesReader()
    names = reader.GetGDCMSeriesFileNames(str(folder)) if len(files) > 1 else [str(files[0])]
    if len(names) != len(files) or (len(files) > 1 and len(places) > len(files)):
        return None
    try:
        image = SimpleITK.ReadImage(names if len(names) > 1 else names[0])
    except RuntimeError:
        return None
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1 or image.GetSize()[2] < 2:
        return None
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return canonical(SimpleITK.GetArrayViewFromImage(image).T, LPS_TO_RAS @ affine)


def places_of(headers: list[pydicom.Dataset]) -> list[tuple[float, ...]]:
    """Where the frames of a series are, as its headers say."""
    places = []
    for header in headers:
        shared = (header.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()])[0]
        groups = header.get("PerFrameFunctionalGroupsSequence") or [header]
        for group in groups:
            found = (group.get("PlanePositionSequence") or shared.get("PlanePositionSequence") or [header])[0]
            places.append(tuple(round(float(value), 2) for value in found.get("ImagePositionPatient") or ()))
    return places


def even(headers: list[pydicom.Dataset]) -> bool:
    """Whether frames lie at even distances, each at a place of its own."""
    places = np.array(sorted(set(places_of(headers))))
    if places.ndim != 2 or len(places) < 2:
        return False
    axis = int(np.ptp(places, axis=0).argmax())
    gaps = np.diff(np.sort(places[:, axis]))
    return bool(np.ptp(gaps) <= 0.1 * np.median(gaps))


def volume_of_highdicom(files: list[Path], headers: list[pydicom.Dataset]) -> bool:
    """Whether highdicom reads the series as one volume."""
    if any(int(header.get("SamplesPerPixel") or 1) != 1 for header in headers):
        return False
    try:
        if len(files) == 1:
            highdicom.imread(files[0]).get_volume()
        else:
            highdicom.get_volume_from_series([pydicom.dcmread(file) for file in files])
    except Exception:
        return False
    return len(places_of(headers)) > 1


def converted(folder: Path, out: Path) -> list[Grid]:
    """All volumes that dcm2niix makes of a folder."""
    command = ["dcm2niix", "-z", "n", "-b", "n", "-p", "n", "-m", "n", "-f", "%s_%d_%e_%p", "-o", str(out), str(folder)]
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
    found = []
    for path in sorted(out.glob("*.nii")):
        image = nib.load(path)
        if image.get_data_dtype().fields:
            continue
        data = image.get_fdata()
        volumes = np.moveaxis(data, -1, 0) if data.ndim == 4 else data[None]
        found += [canonical(each, image.affine) for each in volumes if each.ndim == 3]
    return found


def same(one: Grid, other: Grid, interpolated: bool) -> bool:
    """Whether voxels are equal; of interpolated volumes but for rounding, and for the rim, where tools extrapolate."""
    apart = np.abs(one.voxels - other.voxels)
    if interpolated:
        return bool(np.quantile(apart, 0.99) <= ROUNDING)
    return bool(apart.max() <= 1e-5 * max(np.abs(one.voxels).max(), 1.0))


def agreement(volumes: list[Grid], others: list[Grid], interpolated: bool) -> str:
    """Whether each volume is one of the others: "equal", or what the nearest one differs in."""
    if not others:
        return "not read"
    worst = "equal"
    for volume in volumes:
        like = [other for other in others if other.voxels.shape == volume.voxels.shape]
        placed = [other for other in like if np.abs(other.affine - volume.affine).max() < AFFINE_MM]
        if not like:
            worst = f"shape {volume.voxels.shape} {others[0].voxels.shape}"
        elif not placed:
            worst = f"affine {min(np.abs(other.affine - volume.affine).max() for other in like):.3g} mm"
        elif not any(same(volume, other, interpolated) for other in placed):
            apart = min(np.abs(other.voxels - volume.voxels).max() for other in placed)
            worst = f"voxels {apart:.4g} of {np.abs(volume.voxels).max():.4g}"
    return worst


def kind_of(headers: list[pydicom.Dataset]) -> str:
    first = headers[0]
    if "MOSAIC" in (first.get("ImageType") or ()) and "PerFrameFunctionalGroupsSequence" not in first:
        kind = "mosaic"
    elif int(first.get("NumberOfFrames") or 1) > 1:
        kind = "multi-frame" if len(headers) == 1 else "several multi-frame"
    else:
        kind = "slices"
    return f"{first.get('Modality')} {kind}"


def examine(root: Path, place: Path, files: list[Path], headers: list[pydicom.Dataset]) -> Row:
    with tempfile.TemporaryDirectory() as made:
        folder, out = Path(made, "in"), Path(made, "out")
        folder.mkdir()
        out.mkdir()
        for number, file in enumerate(files):
            (folder / f"{number:05d}.dcm").symlink_to(file.resolve())
        linked = sorted(folder.iterdir())
        refused, notes, volumes = "", (), []
        try:
            volumes, notes = ours(folder)
        except DataError as error:
            refused = str(error).replace(made, "")
        except Exception as error:
            refused = f"TRACEBACK {type(error).__name__}: {error}"
        reference = itk(folder, linked, headers)
        # A mosaic is a slice to SimpleITK and highdicom, and two of them no volume.
        one = "mosaic" not in kind_of(headers) and (
            (reference is not None and even(headers)) or volume_of_highdicom(linked, headers)
        )
        others = converted(folder, out)
        moved = "tilted" in str(notes) or "interpolated" in str(notes)
        return Row(
            str(place.relative_to(root)),
            len(files),
            kind_of(headers),
            one,
            len(volumes),
            agreement(volumes, [reference] if reference else [], moved)
            if volumes
            else ("reads" if reference else "not read"),
            agreement(volumes, others, moved) if volumes else (f"reads {len(others)}" if others else "not read"),
            "; ".join(notes),
            refused,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=Path, help="write a row a series as CSV")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    rows = []
    for place, files, headers in grouped(options.folder):
        rows.append(examine(options.folder, place, files, headers))
        print("\t".join(map(str, rows[-1])), file=sys.stderr, flush=True)
    if options.rows:
        with options.rows.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(Row._fields)
            writer.writerows(rows)
    print(table(rows))


def table(rows: list[Row]) -> str:
    lines = ["| kind | series | one volume | of these read | equal SimpleITK | several volumes read | equal dcm2niix |"]
    lines.append("|---|---|---|---|---|---|---|")
    for kind in [*sorted({row.kind for row in rows}), ""]:
        own = [row for row in rows if row.kind == kind or not kind]
        one = [row for row in own if row.one_volume]
        read_ones = [row for row in own if row.volumes]
        both = [row for row in read_ones if row.itk != "not read"]
        third = [row for row in read_ones if row.dcm2niix != "not read"]
        cells = (
            kind or "all",
            len(own),
            len(one),
            sum(row.volumes > 0 for row in one),
            f"{sum(row.itk == 'equal' for row in both)} of {len(both)}",
            sum(row.volumes > 1 for row in own),
            f"{sum(row.dcm2niix == 'equal' for row in third)} of {len(third)}",
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    reasons = Counter(re.sub(r"[\d.]+", "N", re.sub(r"^\S+( \(series \d+\))? ", "", row.refused)) for row in rows)
    lines += ["", *(f"{times} x {reason[:150]}" for reason, times in reasons.most_common() if reason)]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
