import numpy as np
import pytest
from comparison_sample import make_comparison, make_tables
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D

from medmtl.experiment.plan.arms import ARMS
from medmtl.experiment.plan.labels import FREE_LOOKS
from medmtl.look import MARKERS, Look
from medmtl.report import style
from medmtl.report.compare import figures
from medmtl.report.compare.reading import label_of, look_of

TASKS = ("HippocampusMR", "SpleenCT", "ProstateMR", "SarcomaMR", "SarcomaCT")


@pytest.fixture
def sample():
    return make_comparison()


def panel(figure, title):
    return next(axes for axes in figure.axes if title in (axes.get_title(), axes.get_title(loc="left")))


def differences(axes):
    """Row -> (difference, whether its marker is filled, its colour), read from the drawn markers."""
    found = {}
    for marker in axes.collections:
        ((x, y),) = marker.get_offsets()
        inside, edge = to_hex(marker.get_facecolor()[0]), to_hex(marker.get_edgecolor()[0])
        found[round(y)] = (x, inside == edge, edge)
    return found


def intervals(axes):
    """Row -> (low, high), read from the drawn horizontal lines."""
    lines = [line for line in axes.lines if len(line.get_xdata()) == 2 and len(set(line.get_ydata())) == 1]
    spans = {line.get_ydata()[0]: tuple(line.get_xdata()) for line in lines}
    return {row: span for row, span in spans.items() if span != (0, 1)}


def of_pair(row, a, b, metric="dice"):
    return next(p for p in row["pairs"] if (p["a"], p["b"], p["metric"]) == (a, b, metric))


def words_of(axes):
    return [text.get_text() for text in axes.texts]


@pytest.mark.parametrize("metric", ["dice", "hd95_mm", "ace_band"])
def test_the_forest_draws_every_difference_with_its_interval_in_the_colour_of_its_task(sample, metric):
    figure = figures.forest(sample, metric)
    assert len(figure.axes) == 3
    axes = panel(figure, "multi-task training\nagainst dedicated training")
    rows = [*sample["tasks"].values(), sample["mean"]]
    colours = [*style.task_colours(TASKS).values(), style.INK]
    drawn, spans = differences(axes), intervals(axes)
    assert len(drawn) == len(rows)
    for index, (row, colour) in enumerate(zip(rows, colours, strict=True)):
        pair = of_pair(row, "multitask", "dedicated", metric)
        assert drawn[index] == (
            pytest.approx(pair["difference"]),
            pair["verdict"] in ("better", "worse"),
            colour.lower(),
        )
        assert spans[index] == (pair["low"], pair["high"])
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [*TASKS, "mean over tasks"]
    assert [line.get_xdata() for line in axes.lines if list(line.get_xdata()) == [0, 0]]


def test_the_forest_has_filled_and_open_markers_where_the_sample_has_both(sample):
    filled = {found[1] for axes in figures.forest(sample, "dice").axes for found in differences(axes).values()}
    assert filled == {True, False}


def test_a_marker_of_the_forest_is_filled_by_the_verdict_and_not_by_the_p_value_alone(sample):
    row = sample["tasks"]["SpleenCT"]
    of_pair(row, "multitask", "dedicated").update(p_holm=0.001, low=-0.01, high=0.02, verdict="no evidence")
    of_pair(row, "transfer", "dedicated").update(p_holm=0.001, low=0.01, high=0.02, verdict="better")
    figure = figures.forest(sample, "dice")
    assert differences(panel(figure, "multi-task training\nagainst dedicated training"))[1][1] is False
    assert differences(panel(figure, "transfer\nagainst dedicated training"))[1][1] is True


def test_the_forest_says_which_side_favours_whom(sample):
    title = "multi-task training\nagainst dedicated training"
    left, right = "\N{LEFTWARDS ARROW} favours", "\N{RIGHTWARDS ARROW}"
    higher = words_of(panel(figures.forest(sample, "dice"), title))
    assert f"{left} dedicated training" in higher
    assert f"favours multi-task training {right}" in higher
    lower = words_of(panel(figures.forest(sample, "hd95_mm"), title))
    assert f"{left} multi-task training" in lower
    assert f"favours dedicated training {right}" in lower


def test_the_forest_says_where_there_is_no_difference_to_draw(sample):
    row = sample["tasks"]["SpleenCT"]
    row["pairs"] = [pair for pair in row["pairs"] if (pair["a"], pair["b"]) != ("transfer", "dedicated")]
    of_pair(row, "multitask", "dedicated").update(dict.fromkeys(("difference", "low", "high", "p_holm")))
    alone = of_pair(sample["tasks"]["SarcomaCT"], "multitask", "dedicated")
    alone.update(low=None, high=None, p_holm=None, verdict="no evidence: n too small")
    figure = figures.forest(sample, "dice")
    transfer = panel(figure, "transfer\nagainst dedicated training")
    assert "not compared" in words_of(transfer)
    assert set(differences(transfer)) == {0, 2, 3, 4, 5}
    multitask = panel(figure, "multi-task training\nagainst dedicated training")
    assert "undefined" in words_of(multitask)
    assert 4 not in intervals(multitask)
    assert differences(multitask)[4][1] is False


def test_the_means_of_the_arms_are_drawn_with_their_intervals_an_arm_a_marker(sample):
    sample["tasks"]["SarcomaCT"]["arms"]["transfer"]["dice"].update(mean=None, low=None, high=None)
    (axes,) = figures.arm_means(sample).axes
    rows = [*sample["tasks"].values(), sample["mean"]]
    for arm in sample["arms"]:
        look = look_of(sample, arm)
        found = sorted(
            (round(line.get_ydata()[0]), line.get_xdata()[0]) for line in axes.lines if line.get_marker() == look.marker
        )
        means = [(index, row["arms"].get(arm, {}).get("dice", {}).get("mean")) for index, row in enumerate(rows)]
        assert found == [(index, mean) for index, mean in means if mean is not None]
    dedicated = sample["tasks"]["SpleenCT"]["arms"]["dedicated"]["dice"]
    assert (dedicated["low"], dedicated["high"]) in intervals(axes).values()


def test_the_learning_curves_rise_over_the_logarithm_of_the_cases_and_end_with_all(sample):
    figure = figures.learning_curves(sample)
    assert figure.get_supxlabel() == "training cases a task, at most"
    axes = panel(figure, "SpleenCT")
    assert axes.get_xticks().tolist() == [1, 2, 3, 4]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2", "4", "8", "all"]
    blocks = [*(sample["sizes"][size] for size in ("2", "4", "8")), sample]
    for arm in sample["arms"]:
        look = look_of(sample, arm)
        (line,) = [line for line in axes.lines if line.get_marker() == look.marker]
        means = [block["tasks"]["SpleenCT"]["arms"][arm]["dice"]["mean"] for block in blocks]
        assert line.get_ydata().tolist() == means
        np.testing.assert_allclose(line.get_xdata(), [1, 2, 3, 4], atol=0.2)
    assert panel(figure, "mean over tasks")


def test_learning_curves_of_two_sizes_without_runs_on_all_cases(sample):
    sample["tasks"], sample["mean"] = {}, {"arms": {}, "pairs": []}
    del sample["sizes"]["2"]
    axes = panel(figures.learning_curves(sample), "SpleenCT")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["4", "8"]


def test_reliability_is_a_panel_an_arm_and_a_line_a_task_in_its_colour():
    sample = make_comparison(("dedicated", "multitask"), dict.fromkeys(TASKS, 4), ())
    tables = make_tables(("dedicated", "multitask"), TASKS)
    del tables["dedicated"]["SpleenCT"]
    figure = figures.reliability_side_by_side(sample, tables, "band")
    assert "5 mm" in figure.get_suptitle()
    for arm, by_task in tables.items():
        axes = panel(figure, label_of(sample, arm))
        drawn = {to_hex(line.get_color()): line for line in axes.lines}
        assert drawn[style.QUIET.lower()].get_xdata().tolist() == [0, 1]
        colours = style.task_colours(TASKS)
        assert set(drawn) == {style.QUIET.lower(), *(colours[task].lower() for task in by_task)}
        for task, table in by_task.items():
            filled = table.count > 0
            line = drawn[colours[task].lower()]
            np.testing.assert_allclose(line.get_xdata(), (table.probability / table.count)[filled])
            np.testing.assert_allclose(line.get_ydata(), (table.positives / table.count)[filled])


def test_arms_have_looks_of_their_own_that_no_task_has():
    looks = [look_of(make_comparison(tuple(ARMS), {"A": 4}, ()), arm) for arm in ARMS] + list(FREE_LOOKS)
    assert len({look.marker for look in looks}) == len(looks)
    for look in looks:
        red, green, blue = (int(look.shade[place : place + 2], 16) for place in (1, 3, 5))
        assert max(red, green, blue) - min(red, green, blue) < 24  # a grey
    assert not {look.shade for look in looks} & set(style.PALETTE)
    assert {look.marker for look in looks} <= set(MARKERS) <= set(Line2D.filled_markers)


def test_the_label_and_look_of_an_arm_of_ones_own_are_those_of_the_comparison():
    sample = make_comparison(("dedicated", "own_way"), {"A": 4}, ())
    look = Look("h", (0, (3, 3)), "#101010")
    sample["arms"]["own_way"] = {"label": "my $way$", "look": look.to_dict()}
    (axes,) = figures.arm_means(sample).axes
    assert [line for line in axes.lines if line.get_marker() == "h" and line.get_color() == "#101010"]
    forest = figures.forest(sample, "dice")
    forest.draw_without_rendering()
    assert panel(forest, "my \\$way\\$\nagainst dedicated training")


@pytest.mark.parametrize(
    "given",
    [
        {"arms": ("dedicated",), "sizes": ()},
        {"arms": ("dedicated", "multitask"), "patients": {r"$\frac{$": 1}, "sizes": (1,)},
        {
            "arms": tuple(ARMS)[2:],
            "patients": {f"Task{i:02d}WithAVeryLongName": 2 + i for i in range(12)},
            "sizes": (4,),
        },
        {"patients": {}, "sizes": ()},
    ],
    ids=["one arm", "one task", "many", "nothing"],
)
def test_small_and_large_comparisons_are_drawn_within_the_figure(given):
    sample = make_comparison(**given)
    tables = make_tables(tuple(sample["arms"]), tuple(sample["tasks"]))
    for figure in (
        figures.forest(sample, "dice"),
        figures.arm_means(sample),
        figures.learning_curves(sample),
        figures.reliability_side_by_side(sample, tables, "band"),
    ):
        figure.draw_without_rendering()
        box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert min(box.x0, box.y0) > -0.02
        assert box.x1 < width + 0.02
        assert box.y1 < height + 0.02


def test_the_same_comparison_gives_the_same_bytes(sample):
    first, second = (style.to_png(figures.forest(sample, "dice"), "a note") for _ in range(2))
    assert first == second
