import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from medmtl.calibration.metrics.bins import bin_volume
from medmtl.calibration.metrics.definitions import ece
from medmtl.calibration.metrics.intervals import FrequencyBand, frequency_band
from medmtl.report.reliability import reliability_diagram
from medmtl.report.style import task_colours
from medmtl.results.case import pooled_bins, tasks_of


def panel(figure, title):
    return next(axes for axes in figure.axes if axes.get_title() == title)


def curve_in(axes, colour):
    return next(line for line in axes.lines if to_hex(line.get_color()) == colour.lower() and line.get_linewidth() > 1)


def shading(axes):
    return [
        found for found in axes.collections if type(found).__name__ in ("FillBetweenPolyCollection", "PolyCollection")
    ]


@pytest.fixture
def tables(results):
    return {task: pooled_bins([r for r in results if r.dataset == task], "band") for task in tasks_of(results)}


@pytest.fixture
def bands(results):
    cases = {task: [r for r in results if r.dataset == task] for task in tasks_of(results)}
    return {
        task: frequency_band([r.calibration["band"] for r in found], [r.case for r in found])
        for task, found in cases.items()
    }


def test_frequency_is_drawn_over_mean_probability_and_the_errors_are_stated(tables):
    table = tables["Heart"]
    figure = reliability_diagram(tables, "band")
    curve = curve_in(panel(figure, "Heart"), task_colours(list(tables))["Heart"])
    filled = table.count > 0
    np.testing.assert_allclose(curve.get_xdata(), (table.probability / table.count)[filled])
    np.testing.assert_allclose(curve.get_ydata(), (table.positives / table.count)[filled])
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert any(f"ECE {ece(table):.3f}" in text for text in texts)
    counts = [bar.get_height() for bar in figure.axes[3].patches]
    assert counts == table.count.tolist()
    assert figure.axes[3].get_yscale() == "log"
    assert "5 mm" in figure.get_suptitle()
    assert not shading(panel(figure, "Heart"))


def test_the_band_lies_over_the_points_in_the_colour_of_the_task(tables, bands):
    figure = reliability_diagram(tables, "band", bands=bands)
    for task, colour in task_colours(list(tables)).items():
        axes = panel(figure, task)
        (shaded,) = shading(axes)
        assert to_hex(shaded.get_facecolor()[0]) == colour.lower()
        corners = {tuple(corner) for path in shaded.get_paths() for corner in np.round(path.vertices, 12)}
        for low_or_high in bands[task].ends:
            for point in zip(curve_in(axes, colour).get_xdata(), low_or_high, strict=True):
                assert tuple(np.round(point, 12)) in corners
        assert "n = 4" in axes.texts[0].get_text()


@pytest.mark.parametrize("reliable", [True, False])
def test_a_band_of_few_patients_has_dashed_edges(tables, bands, reliable):
    band = FrequencyBand(bands["Heart"].ends, 9, reliable)
    axes = panel(reliability_diagram({"Heart": tables["Heart"]}, "band", bands={"Heart": band}), "Heart")
    assert sum(line.get_linestyle() == "--" for line in axes.lines) == (0 if reliable else 2)


@pytest.mark.parametrize(("probability", "label", "side"), [(0.1, 1, "right"), (0.9, 0, "left")])
def test_the_words_stand_in_the_corner_without_points(probability, label, side):
    few, many = torch.tensor([probability] * 9), torch.tensor([0.45, 0.55] * 500)
    labels = torch.cat([torch.full((9,), label), torch.tensor([label, label] * 500)])
    figure = reliability_diagram({"Liver": bin_volume(torch.cat([few, many]), labels)}, "band")
    assert panel(figure, "Liver").texts[0].get_ha() == side


def test_diagrams_survive_what_a_small_or_odd_run_gives(make_case):
    empty = bin_volume(torch.zeros(0), torch.zeros(0, dtype=torch.bool))
    table = make_case().calibration["band"]
    nothing = {"Liver": frequency_band([empty], ["ann"])}
    for figure in (
        reliability_diagram({"Liver": empty}, "whole"),
        reliability_diagram({"Liver": empty}, "whole", bands=nothing),
        reliability_diagram({"Liver": table}, "band", bands={"Liver": frequency_band([table], ["ann"])}),
        reliability_diagram({f"Task{i}": table for i in range(6)}, "band", scaled=True),
    ):
        figure.draw_without_rendering()
