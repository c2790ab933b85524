import itertools

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.contour import QuadContourSet

from medmtl.report.drawing import case_slices
from medmtl.report.outline import CLASS_COLOURS
from medmtl.report.slices import CaseSlices
from medmtl.report.style import to_png

SPACING = (1.0, 2.0, 4.0)


@pytest.fixture
def volume():
    image = np.random.default_rng(0).normal(size=(20, 16, 12)).astype(np.float32)
    label = np.zeros(image.shape, dtype=bool)
    label[4:9, 6:9, 3:8] = True
    return image, label, np.where(label, 0.8, 0.1).astype(np.float32)


def test_the_planes_pass_through_the_centre_of_the_organ(volume):
    image, label, probability = volume
    planes = CaseSlices.cut(image, label, probability, SPACING).planes
    np.testing.assert_array_equal(planes["axial"].image, image[:, :, 5])
    np.testing.assert_array_equal(planes["coronal"].label, label[:, 7, :])
    np.testing.assert_array_equal(planes["sagittal"].probability, probability[6])
    assert [plane.spacing for plane in planes.values()] == [(1.0, 2.0), (1.0, 4.0), (2.0, 4.0)]


def test_without_a_label_the_predicted_organ_is_shown_and_without_both_the_middle(volume):
    image, label, probability = volume
    nothing = np.zeros_like(label)
    predicted = CaseSlices.cut(image, nothing, probability, SPACING)
    np.testing.assert_array_equal(predicted.planes["sagittal"].image, image[6])
    middle = CaseSlices.cut(image, nothing, np.zeros_like(probability), SPACING)
    np.testing.assert_array_equal(middle.planes["axial"].image, image[:, :, 6])


def test_padding_is_left_out_and_the_organ_never_is(volume):
    image, label, probability = volume
    image[:, :, 6:] = image.min()
    planes = CaseSlices.cut(image, label, probability, SPACING).planes
    assert planes["sagittal"].image.shape == (16, 8)
    assert planes["sagittal"].label.sum() == label[6].sum()


def test_greys_are_set_by_the_surroundings_of_the_organ(volume):
    image, label, probability = volume
    image[18:, 14:, :] = 1e4
    black, white = CaseSlices.cut(image, label, probability, (3.0, 3.0, 3.0)).grey
    assert -4 < black < white < 4


def test_slices_keep_no_hold_of_the_volume(volume):
    image, label, probability = volume
    slices = CaseSlices.cut(image, label, probability, SPACING)
    for plane in slices.planes.values():
        assert not any(np.shares_memory(kept, whole) for kept in plane[:3] for whole in volume)


def test_all_planes_are_drawn_to_one_scale(volume):
    figure = case_slices(CaseSlices.cut(*volume, SPACING), "case")
    figure.draw_without_rendering()
    sizes = {"axial": (20, 32), "coronal": (20, 48), "sagittal": (32, 48)}
    scales = []
    for axes in figure.axes:
        box = axes.get_window_extent()
        width, height = sizes[axes.get_xlabel()]
        scales += [box.width / width, box.height / height]
    assert max(scales) == pytest.approx(min(scales), rel=1e-6)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["truth", "prediction", "10 mm"]


@pytest.mark.parametrize("shape", [(1, 1, 1), (40, 3, 2), (2, 2, 200)])
def test_volumes_of_any_shape_are_drawn(shape):
    image, label = np.zeros(shape, dtype=np.float32), np.ones(shape, dtype=bool)
    figure = case_slices(CaseSlices.cut(image, label, image, SPACING), "a title longer than the figure is wide " * 4)
    assert to_png(figure)[1:4] == b"PNG"


def test_a_case_without_a_truth_is_cut_as_one_without_an_organ(volume):
    image, label, probability = volume
    unknown, empty = (CaseSlices.cut(image, each, probability, SPACING) for each in (None, np.zeros_like(label)))
    for name, plane in unknown.planes.items():
        for found, expected in zip(plane, empty.planes[name], strict=True):
            np.testing.assert_array_equal(found, expected)
    assert unknown.grey == empty.grey


CLASSES = {"head": (1,), "tail": (2,), "whole": (1, 2)}


@pytest.fixture
def classed(volume):
    image, label, probability = volume
    truth = label.astype(np.uint8)
    truth[7:9] *= 2
    predicted = np.roll(truth, 1, axis=1)
    return CaseSlices.cut(image, label, probability, SPACING, (truth, predicted), CLASSES), truth, predicted


def test_classes_are_cut_as_the_image_is(volume, classed):
    slices, *parts = classed
    for found, whole in zip(slices.planes["coronal"].parts, parts, strict=True):
        np.testing.assert_array_equal(found, whole[:, 7, :])
        assert not np.shares_memory(found, whole)
    plain = CaseSlices.cut(*volume, SPACING)
    for name, plane in plain.planes.items():
        assert plane.parts is None
        for found, expected in zip(slices.planes[name][:5], plane[:5], strict=True):
            np.testing.assert_array_equal(found, expected)


def test_each_class_has_outlines_of_truth_and_prediction_in_a_colour_of_its_own(classed):
    slices, truth, predicted = classed
    figure = case_slices(slices, "case")
    (axes,) = (axes for axes in figure.axes if axes.get_xlabel() == "coronal")
    drawn = [found for found in axes.collections if isinstance(found, QuadContourSet)]
    expected = [
        (colour, np.isin(parts, numbers)[:, 7, :])
        for colour, numbers in zip(CLASS_COLOURS, CLASSES.values(), strict=False)
        for parts in (truth, predicted)
        if np.isin(parts, numbers)[:, 7, :].any()
    ]
    assert [to_hex(contour.get_edgecolor()[0]).upper() for contour in drawn] == [colour for colour, _ in expected]
    for contour, (_, mask) in zip(drawn, expected, strict=True):
        (path,) = contour.get_paths()
        box = path.get_extents()
        for axis, (low, high, size) in enumerate(((box.x0, box.x1, 1.0), (box.y0, box.y1, 4.0))):
            inside = np.flatnonzero(mask.any(axis=1 - axis))
            # Half way between the centres of the outermost voxels and of their neighbours.
            assert (low, high) == pytest.approx((inside[0] * size, (inside[-1] + 1) * size))
    names, kinds = ([text.get_text() for text in legend.get_texts()] for legend in reversed(figure.legends))
    assert (names, kinds) == (list(CLASSES), ["truth", "prediction", "10 mm"])


@pytest.mark.parametrize(("name", "count"), [("a rather long name of class", 13), ("LW", 30), ("$x", 2)])
def test_the_legend_of_many_or_long_names_stays_within_the_figure(volume, name, count):
    label = volume[1]
    classes = {f"{name} {number}": (number,) for number in range(1, count + 1)}
    figure = case_slices(CaseSlices.cut(*volume, SPACING, (label * np.uint8(3),) * 2, classes), "case")
    figure.draw_without_rendering()
    width = figure.bbox.width
    boxes = [legend.get_window_extent() for legend in figure.legends]
    boxes += [axes.get_tightbbox() for axes in figure.axes]
    assert all(box.x0 >= 0 and box.x1 <= width for box in boxes)
    for one, other in itertools.combinations(boxes[:3], 2):
        assert one.y0 >= other.y1 - 1 or other.y0 >= one.y1 - 1
