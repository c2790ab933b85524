import math

import numpy as np
import pytest
from matplotlib.colors import to_hex

from medmtl.quantity import Quantity
from medmtl.report import style
from medmtl.report.reliability import reliability_diagram
from medmtl.report.test import figures
from medmtl.results.case import pooled_bins, tasks_of

SPECTRAL, ENTROPY, SOFTMAX = (Quantity(key, key.title()) for key in ("spectral", "entropy", "max_softmax"))


def lines_in(axes, colour):
    return [line for line in axes.lines if to_hex(line.get_color()) == colour.lower()]


def panel(figure, title):
    return next(axes for axes in figure.axes if axes.get_title() == title)


@pytest.fixture
def tables(results):
    return {task: pooled_bins([r for r in results if r.dataset == task], "band") for task in tasks_of(results)}


@pytest.fixture
def signatures():
    generator = np.random.default_rng(0)
    raw = {dataset: generator.uniform(1, 2, (3, 8)) for dataset in ("Liver", "Heart", "Other")}
    return {dataset: values / np.linalg.norm(values, axis=1, keepdims=True) for dataset, values in raw.items()}


def test_a_task_has_the_same_colour_in_every_figure(results, tables, signatures):
    colours = style.task_colours(tasks_of(results))
    for task, colour in colours.items():
        reliability = panel(reliability_diagram(tables, "band"), task)
        spectrum = panel(figures.spectra(signatures, "decoder", tasks_of(results)), task)
        assert lines_in(reliability, colour)
        assert lines_in(spectrum, colour)
        for figure in (figures.dice_by_task(results), figures.score_distributions(results, SPECTRAL, None)):
            row = next(
                index
                for index, label in enumerate(figure.axes[0].get_yticklabels())
                if label.get_text().startswith(task)
            )
            (median,) = [line for line in figure.axes[0].lines if round(np.mean(line.get_ydata())) == row]
            assert to_hex(median.get_color()) == colour.lower()


def test_ood_datasets_are_grey_and_no_task_is(results, signatures):
    figure = figures.spectra(signatures, "decoder", tasks_of(results))
    assert lines_in(panel(figure, "Other"), style.OOD_COLOUR)
    assert style.OOD_COLOUR not in style.PALETTE


def test_colours_stay_distinct_for_twelve_tasks_and_exist_for_more():
    assert len(set(style.task_colours([str(i) for i in range(12)]).values())) == 12
    assert len(style.task_colours([str(i) for i in range(30)])) == 30


def test_the_lower_row_of_the_spectra_shows_the_difference_from_the_mean_of_the_tasks(signatures):
    figure = figures.spectra(signatures, "decoder", ["Liver", "Heart"])
    centre = (np.median(signatures["Liver"], axis=0) + np.median(signatures["Heart"], axis=0)) / 2
    lower = figure.axes[1]
    np.testing.assert_allclose(lower.lines[-1].get_ydata(), np.median(signatures["Liver"], axis=0) - centre)
    assert "decoder" in figure.get_suptitle()


def test_the_threshold_is_drawn_where_there_is_one(results):
    def dashed(threshold):
        axes = figures.score_distributions(results, SPECTRAL, threshold).axes[0]
        return [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "--"]

    assert dashed(0.05) == [0.05]
    assert dashed(None) == dashed(math.inf) == []


def test_roc_names_the_auroc_of_every_score(results):
    figure = figures.roc(results, [SPECTRAL, ENTROPY, SOFTMAX])
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert len(legend) == 3
    assert legend[0].endswith("AUROC 1.000")
    assert legend[1].endswith("AUROC 0.500")


def test_figures_survive_what_a_small_or_odd_run_gives(make_case):
    one = [make_case(dice=math.nan, scores={"entropy": math.nan}, rejected=None)]
    for figure in (
        figures.spectra({"Liver": np.ones((1, 1)), "Other": np.zeros((0, 1))}, "decoder", ["Liver"]),
        figures.dice_by_task(one),
        figures.dice_by_task([]),
        figures.score_distributions(one, ENTROPY, None),
        figures.score_distributions(one, SPECTRAL, 0.5),
        figures.roc(one, [ENTROPY]),
        figures.roc([], []),
    ):
        figure.draw_without_rendering()


def test_a_name_with_dollar_signs_is_drawn_as_it_is(make_case):
    figure = figures.dice_by_task([make_case(dataset=r"$\frac{$")])
    figure.draw_without_rendering()
    assert figure.axes[0].get_yticklabels()[0].get_text().startswith(r"\$\frac{\$")


def test_the_same_figure_gives_the_same_bytes_and_a_note_makes_it_taller(results):
    figure = figures.dice_by_task(results)
    plain, noted = style.to_png(figure), style.to_png(figure, "Digital phantoms, not patients")
    assert plain == style.to_png(figure)
    height, taller = (int.from_bytes(png[20:24], "big") for png in (plain, noted))
    assert taller == height + style.DOTS_PER_INCH // 5
