"""Slices show the patient's right on the left of the page, whatever the order of the voxels in the file."""

import itertools
from io import BytesIO

import nibabel
import numpy as np
import pytest
import torch
from matplotlib.image import imread
from monai.data import MetaTensor
from scipy.spatial.transform import Rotation

from medmtl.data_tools import facts
from medmtl.errors import ConfigError
from medmtl.io.volume import Volume
from medmtl.report.cut import cuts, grey_window
from medmtl.report.data.thumbnail import thumbnail
from medmtl.report.drawing import case_slices
from medmtl.report.orientation import VARIABLE, in_words, letters_of, to_ras
from medmtl.report.predict.picture import draw_case
from medmtl.report.slices import CaseSlices

SPACING = (1.0, 1.25, 2.0)
SIDES = {"R": 0, "A": 1, "S": 2}
CODES = ["".join(c) for axes in itertools.permutations(("LR", "PA", "IS")) for c in itertools.product(*axes)]


def phantom(side):
    """A body in RAS+ whose bright marker lies towards one side of the patient, and an organ in its middle."""
    image = np.full((24, 20, 16), 10.0, np.float32)
    image[0, 0, 0] = 0.0  # all else is above the lowest value, which counts as padding
    where = [slice(8, 16), slice(6, 14), slice(5, 11)]
    organ = np.zeros(image.shape, np.uint8)
    organ[tuple(where)] = 1
    where[SIDES[side]] = slice(-4, -1)
    image[tuple(where)] = 200.0
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = (-12, 7, 30)
    return image, organ, affine


def in_ras(codes):
    """How nibabel turns RAS+ to these axis codes."""
    return nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(codes)
    )


def file_of(image, organ, affine, codes, degrees=0.0):
    files = [nibabel.Nifti1Image(volume, affine).as_reoriented(in_ras(codes)) for volume in (image, organ)]
    assert "".join(nibabel.aff2axcodes(files[0].affine)) == codes
    oblique = np.eye(4)
    oblique[:3, :3] = Rotation.from_euler("xyz", [degrees, -degrees, degrees], degrees=True).as_matrix()
    return [np.asarray(file.dataobj) for file in files], oblique @ files[0].affine


def marker(png, panel):
    """Where the marker lies in one of three panels of a thumbnail, as shares of its width and height from top left."""
    grey = imread(BytesIO(png))[..., :3].mean(axis=-1)
    sizes = np.multiply((24, 20, 16), SPACING)
    widths = np.array([sizes[0], sizes[0], sizes[1]])
    edges = np.r_[0, np.cumsum(widths) + 0.0] / widths.sum() * grey.shape[1]
    own = grey[:, round(edges[panel]) + 4 : round(edges[panel + 1]) - 4]
    rows, columns = np.nonzero(own > 0.7)
    return np.median(columns) / own.shape[1], np.median(rows) / own.shape[0]


@pytest.mark.parametrize(("codes", "degrees"), [*((codes, 0) for codes in CODES), ("LPS", 12), ("SPR", 12)])
def test_a_volume_is_turned_to_the_patient_as_nibabel_turns_it(codes, degrees):
    image, organ, affine = phantom("R")
    (voxels, mask), turned = file_of(image, organ, affine, codes, degrees)
    (found, found_mask), spacing = to_ras(turned, voxels, mask)
    np.testing.assert_array_equal(found, image)
    np.testing.assert_array_equal(found_mask, organ)
    assert spacing == pytest.approx(SPACING)
    assert np.shares_memory(found, voxels)
    expected = nibabel.as_closest_canonical(nibabel.Nifti1Image(voxels, turned))
    assert spacing == pytest.approx(expected.header.get_zooms())


@pytest.mark.parametrize("codes", ["LPS", "PIR"])
@pytest.mark.parametrize("side", SIDES)
def test_the_patients_right_is_on_the_left_of_every_picture(monkeypatch, codes, side):
    """The picture of `medmtl data check`, which is drawn as all others are, pixel by pixel."""
    (voxels, mask), affine = file_of(*phantom(side), codes, degrees=8)

    def drawn():
        return facts._draw(Volume(voxels, affine), Volume(mask, affine))

    places = {"R": (0, 1), "A": (2,), "S": (1, 2)}[side]
    for panel in places:
        x, y = marker(drawn(), panel)
        assert (y < 0.3) if side == "S" else (x < 0.3)
    monkeypatch.setenv(VARIABLE, "neurological")
    for panel in places:
        x, y = marker(drawn(), panel)
        assert (y < 0.3) if side == "S" else (x > 0.7)


@pytest.mark.parametrize("convention", ["radiological", "neurological"])
def test_letters_name_the_sides_where_matplotlib_draws_them(monkeypatch, convention):
    """A voxel of each side is projected to the page; the letter of that side is the one nearest to it."""
    monkeypatch.setenv(VARIABLE, convention)
    image, organ, _ = phantom("R")
    figure = case_slices(CaseSlices.cut(image, organ > 0, organ.astype(np.float32), SPACING), "case")
    figure.draw_without_rendering()
    sizes = np.multiply(image.shape, SPACING)
    for axes, (across, up) in zip(figure.axes, ((0, 1), (0, 2), (1, 2)), strict=True):
        letters = {text.get_text(): text.get_window_extent() for text in axes.texts}
        assert len(letters) == 4
        middle = np.array([sizes[across], sizes[up]]) / 2
        for place, axis in enumerate((across, up)):
            for letter, share in zip(("LR", "PA", "IS")[axis], (0.0, 1.0), strict=True):
                spot = middle.copy()
                spot[place] = share * sizes[axis]
                at = axes.transData.transform(spot)
                centres = {name: (box.x0 + box.width / 2, box.y0 + box.height / 2) for name, box in letters.items()}
                assert min(centres, key=lambda name: np.hypot(*np.subtract(centres[name], at))) == letter


def test_the_gallery_cuts_what_the_page_shows(monkeypatch):
    image, organ, affine = phantom("R")
    pictures = []
    for codes in ("RAS", "LPI", "ASL"):
        (voxels, mask), turned = file_of(image, organ, affine, codes)
        scan = MetaTensor(torch.from_numpy(np.ascontiguousarray(voxels))[None], affine=torch.from_numpy(turned))
        pictures.append(draw_case("a", scan, mask))
    assert len(set(pictures)) == 1
    monkeypatch.setenv(VARIABLE, "neurological")
    assert draw_case("a", scan, mask) != pictures[0]


def test_the_convention_is_said_and_another_word_is_refused(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert in_words().startswith("Radiological convention: the patient's right (R) is on the left")
    assert [letters_of(name) for name in ("axial", "coronal", "sagittal")] == [
        ("R", "L", "P", "A"),
        ("R", "L", "I", "S"),
        ("A", "P", "I", "S"),
    ]
    monkeypatch.setenv(VARIABLE, "neurological")
    assert "Neurological convention, not the radiological one" in in_words()
    monkeypatch.setenv(VARIABLE, "left")
    with pytest.raises(ConfigError, match="MEDMTL_CONVENTION=left: use radiological or neurological"):
        letters_of("axial")


def test_slices_go_through_the_largest_area_and_not_between_two_kidneys():
    image = np.random.default_rng(0).normal(size=(40, 20, 20)).astype(np.float32)
    organ = np.zeros(image.shape, bool)
    organ[4:9, 6:14, 5:15] = organ[30:36, 6:14, 5:15] = organ[31:34, 5:15, 12] = True
    centroid = np.round(np.mean(np.nonzero(organ), axis=1)).astype(int)
    assert not organ[centroid[0]].any()
    for name, axis in (("axial", 2), ("coronal", 1), ("sagittal", 0)):
        index = cuts(image, organ)[name][axis]
        areas = [organ.take(i, axis).sum() for i in range(image.shape[axis])]
        assert areas[index] == max(areas)


def test_one_window_serves_all_slices_of_a_volume():
    """Brightness rises from foot to head, so that a window for each slice would hide it."""
    image = np.tile(np.linspace(0, 100, 20, dtype=np.float32), (24, 20, 1))
    organ = np.zeros(image.shape, bool)
    organ[8:16, 6:14, 4:16] = True
    figure = case_slices(CaseSlices.cut(image, organ, organ.astype(np.float32), (1, 1, 1)), "case")
    limits = {axes.images[0].get_clim() for axes in figure.axes}
    assert limits == {grey_window(image, organ, (1, 1, 1))}
    low = thumbnail(image, organ.astype(np.uint8), (1, 1, 1))
    axial, coronal = (imread(BytesIO(low))[..., 0][20:-20, first : first + 40] for first in (40, 190))
    assert np.ptp(axial[:, 4:-4]) < np.ptp(coronal[:, 4:-4])
