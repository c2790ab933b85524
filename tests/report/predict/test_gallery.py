import base64
import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from html_page import Page
from matplotlib.colors import to_hex, to_rgb
from monai.data import MetaTensor
from scipy.spatial.distance import pdist

from medmtl.errors import RunError
from medmtl.ood.reason import Compared
from medmtl.report.outline import CLASS_COLOURS
from medmtl.report.predict import gallery, picture
from medmtl.report.predict.gallery import first_cases, headline, write_gallery
from medmtl.report.predict.picture import MASK, draw_case, slices_of
from medmtl.report.slices import CaseSlices
from medmtl.results.prediction import FailedCase, PredictedCase, worst_first

AFFINE = np.array([[-1.0, 0, 0, 30], [0, 0, 2, -5], [0, 3, 0, 2], [0, 0, 0, 1]])


def make(case, in_distribution=True, p_value=0.5, ood_score=0.1, **given):
    values = {
        "case": case,
        "input": f"in/{case}.nii.gz",
        "mask": f"{case}.nii.gz",
        "in_distribution": in_distribution,
        "p_value": p_value,
        "alpha": 0.05,
        "nearest_task": "LiverCT",
        "ood_score": ood_score,
        "scores": {"spectral": ood_score},
        "task": "LiverCT",
        "preprocessing": "3 x 3 x 3 mm, -160 to 240 HU",
        "volume_ml": 12.34,
        "expected_volume_ml": 15.67,
        "model": {"name": "best.ckpt", "digest": "d", "medmtl": "1"},
        "warnings": [],
        "seconds": {},
        "files": {"picture": f"figures/{case}.png"},
    }
    return PredictedCase(**(values | given))


DESCRIBED = [
    asdict(Compared("parts", "parts", "17 ", "1 ", "3 ", 7.5, -1.5, 3.0)),
    asdict(Compared("volume_ml", "volume", "11.2 ml", "9.1 ml", "20 ml", 0.6, -3.0, 3.0)),
]
CASES = [
    make("fine"),
    make("close", p_value=0.06),
    make(
        "far", False, 0.02, 0.4, warnings=["a warning"], mask=None, mask_reliable=False, reasons=["the mask is empty"]
    ),
    make(
        "doubtful",
        mask_reliable=False,
        mask_p_value=0.03,
        mask_disagreement=0.62,
        reasons=["the mask of the mirrored image differs"],
        nearest_image="LiverCT/liver_7",
        mask_descriptors=DESCRIBED,
    ),
    make("farther", False, 0.02, 0.5),
    make("unknown", None, None, None, nearest_task=None),
]
FAILED = [FailedCase("broken", "in/broken.nii.gz", "in/broken.nii.gz is <torn>: replace it")]


@pytest.fixture(scope="module")
def volume():
    image = np.random.default_rng(0).normal(size=(14, 12, 10)).astype(np.float32)
    mask = np.zeros(image.shape, dtype=np.uint8)
    mask[3:8, 5:9, 2:6] = 1
    return image, mask


def as_meta(image, affine=AFFINE):
    return MetaTensor(torch.from_numpy(np.ascontiguousarray(image))[None], affine=torch.from_numpy(affine))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, volume):
    folder = tmp_path_factory.mktemp("out")
    (folder / "figures").mkdir()
    for case in CASES:
        (folder / case.files["picture"]).write_bytes(draw_case(case.case, as_meta(volume[0]), volume[1]))
    assert write_gallery(folder, CASES, FAILED, {"checkpoint": "best.ckpt"}, "Phantoms") == folder / "gallery.html"
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return Page((folder / "gallery.html").read_text())


def test_the_worst_verdicts_come_first(page):
    order = ["far", "farther", "doubtful", "unknown", "close", "fine"]
    assert [case.case for case in worst_first(CASES)] == order
    assert [attributes["alt"] for tag, attributes in page.tags if tag == "img"] == [
        f"Slices of {name}" for name in order
    ]


def test_the_page_holds_every_picture_and_needs_nothing_but_itself(folder, page):
    assert page.open == []
    assert page.alone
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    embedded = {base64.b64decode(source.removeprefix("data:image/png;base64,")) for source in sources}
    assert embedded == {path.read_bytes() for path in (folder / "figures").iterdir()}


def test_the_descriptors_of_a_mask_stand_beside_their_range_in_training(page):
    (parts,), (volume,) = page.rows_of("parts"), page.rows_of("volume")
    assert (parts[1:], volume[1:]) == (["17", "1 to 3"], ["11.2 ml", "9.1 ml to 20 ml"])
    styles = [
        given.get("style") for tag, given in page.tags if tag == "span" and given.get("class") in ("range", "dot")
    ]
    assert styles == ["left: 37.5%; width: 37.5%", "left: 100.0%", "left: 25.0%; width: 50.0%", "left: 55.0%"]
    assert [given.get("class") for tag, given in page.tags if tag == "tr"].count("outside") == 1


def test_it_lists_verdicts_and_failures(page):
    for text in (headline(CASES, FAILED), "in/broken.nii.gz is <torn>: replace it", "the mask is empty", "best.ckpt"):
        assert text in page.words
    assert "out-of-distribution 2 undecided 1 in-distribution 3 mask not reliable 2 failed 1" in page.words
    assert "out-of-distribution, no mask written" in page.words
    assert page.words.count("12.3") == 2 * len(CASES)
    assert not {"None", "nan", "torn"} & {tag for tag, _ in page.tags}
    assert not {"None", "nan"} & set(page.words.split())


def test_it_says_why_an_image_or_a_mask_is_flagged_and_names_the_nearest_training_image(page):
    assert "in-distribution · mask not reliable the mask of the mirrored image differs" in page.words
    assert "mask differs by 62 % (p = 0.030)" in page.words
    assert "LiverCT/liver_7" in page.words


def test_the_headline_counts():
    assert headline(CASES, FAILED) == (
        "2 of 7 images are out-of-distribution: do not trust their masks. 2 masks are not reliable. "
        "1 of 7 images is undecided. 1 could not be segmented."
    )
    assert headline(CASES[:2], []) == "2 of 2 images are in-distribution."
    assert headline(CASES[:1], []) == "1 of 1 image is in-distribution."
    assert headline([], FAILED) == "1 could not be segmented."


def test_a_page_holds_no_more_pictures_than_a_browser_opens(folder, monkeypatch):
    monkeypatch.setattr(gallery, "SHOWN", 2)
    page = Page(write_gallery(folder, CASES, [], {}, "").read_text())
    shown = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    assert shown == ["Slices of far", "Slices of farther"]
    assert "The other 4 images are in the table alone" in page.words


def test_names_from_the_data_are_escaped(folder, tmp_path):
    given = {"nearest_task": "<i>", "task": "<u>", "warnings": ["<em>"], "files": {"picture": "fine.png"}}
    (tmp_path / "fine.png").write_bytes((folder / "figures" / "fine.png").read_bytes())
    odd = make("<tt>", **given)
    page = Page(write_gallery(tmp_path, [odd], [FailedCase("<s>", "", "<q>")], {"<k>": "<v>"}, "<note>").read_text())
    names = ("tt", "i", "u", "em", "s", "q", "k", "v", "note")
    assert not set(names) & {tag for tag, _ in page.tags}
    assert all(f"<{name}>" in page.words for name in names)


def test_a_picture_shows_the_patient_whatever_the_order_of_the_voxels(volume):
    image, mask = volume
    picture = draw_case("a", as_meta(image), mask)
    assert picture[1:4] == b"PNG"
    turned = AFFINE[:, [1, 2, 0, 3]].copy()
    turned[:3, 3] += turned[:3, 0] * (image.shape[1] - 1)
    turned[:3, 0] *= -1
    image, mask = (values.transpose(1, 2, 0)[::-1] for values in (image, mask))
    assert draw_case("a", as_meta(image, turned), mask) == picture
    mirrored = AFFINE * [[-1], [1], [1], [1]]
    assert draw_case("a", as_meta(volume[0], mirrored), volume[1]) != picture


def test_a_picture_without_a_mask_is_that_of_an_empty_one_but_for_the_legend(volume, monkeypatch):
    cuts = []
    cut = CaseSlices.cut

    def spy(*arguments):
        cuts.append(cut(*arguments))
        return cuts[-1]

    monkeypatch.setattr(CaseSlices, "cut", spy)
    image, mask = volume
    bare, empty = (draw_case("a", as_meta(image), each) for each in (None, np.zeros_like(mask)))
    assert bare != empty
    for name, plane in cuts[0].planes.items():
        np.testing.assert_array_equal(plane.image, cuts[1].planes[name].image)
        assert not plane.probability.any()
        assert plane.spacing == {"axial": (1, 2), "coronal": (1, 3), "sagittal": (2, 3)}[name]


def drawn(monkeypatch, *arguments):
    """The figure of a case: colours of contours a panel, and labels of the legend."""
    figures = []
    monkeypatch.setattr(picture, "to_png", lambda figure: figures.append(figure) or b"")
    draw_case(*arguments)
    (figure,) = figures
    contours = [{to_hex(each.get_edgecolor()[0]).upper() for each in axes.collections} for axes in figure.axes]
    return contours, [text.get_text() for text in figure.legends[0].get_texts()]


def test_each_class_has_a_contour_in_a_colour_of_its_own(volume, monkeypatch):
    image, _ = volume
    mask = np.zeros(image.shape, np.uint16)
    mask[2:10, 3:10, 1:8], mask[4:8, 5:8, 3:6] = 4, 300
    one, legend = drawn(monkeypatch, "a", as_meta(image), mask, {"liver": {4, 300}})
    assert one == [{MASK.colour}] * 3
    assert legend[:-1] == ["mask"]
    two, legend = drawn(monkeypatch, "a", as_meta(image), mask, {"whole_$1": {4, 300}, "core": {300}})
    assert two == [set(CLASS_COLOURS[:2])] * 3
    assert [text.replace("\\", "") for text in legend[:-1]] == ["whole_$1", "core"]
    many = {f"a class of a long name {number}": {number} for number in range(9)}
    _, legend = drawn(monkeypatch, "a", as_meta(image), mask, many)
    assert legend[:-1] == list(many)


def test_colours_of_classes_are_told_apart_in_colour_blindness():
    """Distances in CIELAB after Machado et al. (2009), severity 1: 2 is just noticeable."""
    seen = {
        "normal": np.eye(3),
        "deuteranopia": [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
        "protanopia": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
        "tritanopia": [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]],
    }
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    stored = np.array([to_rgb(colour) for colour in CLASS_COLOURS])
    light = np.where(stored <= 0.04045, stored / 12.92, ((stored + 0.055) / 1.055) ** 2.4)
    for matrix in seen.values():
        xyz = np.clip(light @ np.transpose(matrix), 0, 1) @ to_xyz.T / (0.9505, 1, 1.089)
        root = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
        lab = np.stack([116 * root[:, 1], 500 * (root[:, 0] - root[:, 1]), 200 * (root[:, 1] - root[:, 2])], 1)
        assert pdist(lab).min() > 15


FULL = [
    make(
        "ood", False, 1 / 21, 0.4, calibration_patients=[20], ood_threshold=0.25, chosen="the nearest of 3 was used",
        files={"picture": "figures/ood.png", "slices": "figures/ood.slices.json"}, warnings=["all say so", "odd"],
    ),
    make("near", p_value=0.06, ood_threshold=0.25, warnings=["all say so"]),
    make("plain", warnings=["all say so"]),
]  # fmt: skip


@pytest.fixture(scope="module")
def full(tmp_path_factory, volume):
    folder = tmp_path_factory.mktemp("full")
    (folder / "figures").mkdir()
    for case in FULL:
        (folder / case.files["picture"]).write_bytes(draw_case(case.case, as_meta(volume[0]), volume[1]))
    strip = slices_of(as_meta(volume[0]), volume[1], volume[1] * np.float32(0.8))
    (folder / FULL[0].files["slices"]).write_text(json.dumps(strip.to_dict()))
    return Page(write_gallery(folder, FULL, [], {}, "").read_text())


def test_a_case_says_how_far_its_score_and_its_p_value_are_from_the_threshold(full):
    words = full.words.replace("\N{NO-BREAK SPACE}", " ")
    assert "p ≤ 0.048, the least that 20 patients allow (flagged up to \N{GREEK SMALL LETTER ALPHA} = 0.05)" in words
    assert "0.400 (flagged above 0.250)" in words
    assert "p = 0.060 (flagged up to \N{GREEK SMALL LETTER ALPHA} = 0.05)" in words
    assert [row[2] for row in full.rows if row[0] in ("ood", "near", "plain")] == ["≤ 0.048", "0.060", "0.500"]


def test_a_volume_of_an_ood_image_is_never_without_a_word(full):
    for volume in ("12.3 ml", "15.7 ml"):  # of mask and probability
        assert full.words.count(f"{volume}, outlined in an OOD image") == 1
    assert [row[7] for row in full.rows if row[0] in ("ood", "near")] == ["12.3 (OOD)", "12.3"]
    assert [row[8] for row in full.rows if row[0] in ("ood", "near")] == ["15.7 (OOD)", "15.7"]


def test_what_all_images_have_is_said_once_and_is_no_warning_of_any(full):
    assert full.words.count("all say so") == 1
    assert "Of all images: all say so." in full.words
    assert "(the nearest of 3 was used)" in full.words


def test_three_cases_are_named_first_with_links_to_their_pictures(full):
    before, _, _ = full.words.partition("All images, OOD")
    assert "Look first at ood : out-of-distribution." in before
    assert "near : not flagged, p" in before
    places = [given["id"] for tag, given in full.tags if tag == "section"]
    links = [given["href"] for tag, given in full.tags if tag == "a"]
    assert len(places) == 3
    assert all(links.count(f"#{place}") == 2 for place in places)
    assert [case.case for case in first_cases(worst_first(CASES))] == ["far", "farther", "doubtful"]


def test_a_case_has_a_slider_where_its_slices_were_written(full):
    ranges = [given for tag, given in full.tags if tag == "input" and given["type"] == "range"]
    boxes = [given["value"] for tag, given in full.tags if tag == "input" and given["type"] == "checkbox"]
    assert (len(ranges), boxes) == (1, ["mask", "probability"])
    assert full.open == []
    assert full.alone


def test_slices_that_are_torn_are_said_to_be(tmp_path, folder):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "fine.png").write_bytes((folder / "figures" / "fine.png").read_bytes())
    (tmp_path / "figures" / "fine.slices.json").write_text('{"view": 1')
    case = make("fine", files={"picture": "figures/fine.png", "slices": "figures/fine.slices.json"})
    with pytest.raises(RunError, match=r"fine\.slices\.json cannot be read"):
        write_gallery(tmp_path, [case], [], {}, "")
