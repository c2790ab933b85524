import base64
import math
import re

import numpy as np
import pytest
from html_page import Page
from matplotlib.colors import to_hex
from ood_sample import make_description, make_records, make_statistics
from sklearn.metrics import roc_auc_score

from medmtl.report import style
from medmtl.report.ood.failure import labelled, rejecting, risk_coverage_curves, score_against_dice
from medmtl.report.ood.figures import heat_map, severity_curves
from medmtl.report.ood.numbers import (
    aurocs,
    conditions_of,
    detectors_by_mean,
    images_of,
    leading,
    shown_by_name,
    threshold,
)
from medmtl.report.ood.page import sentences, write_ood_page
from medmtl.report.ood.scores import roc_by_group, scores_by_group
from medmtl.results.benchmark import Record

NOTE = "Digital phantoms, not patients"
FACTS = {"data_note": NOTE, "checkpoint": "best.ckpt"}
ALPHA = "\N{GREEK SMALL LETTER ALPHA}"
WHY = "near: MEDMTL_CORPUS is not set"


def label_of(name):
    return make_description(name)["label"]


def lines_of(axes, colour):
    return [line for line in axes.lines if to_hex(line.get_color()) == colour.lower()]


@pytest.fixture(scope="module")
def records():
    return make_records()


@pytest.fixture(scope="module")
def statistics(records):
    return make_statistics(records)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, records, statistics):
    folder = tmp_path_factory.mktemp("ood")
    assert write_ood_page(folder, "multitask", records, statistics, FACTS, [WHY]) == folder / "ood.html"
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return Page((folder / "ood.html").read_text())


def test_a_benchmark_is_a_page_and_its_figures(folder, page):
    drawn = {path.stem for path in (folder / "figures").iterdir()}
    scores = {"scores-spectral_published", "scores-fusion"}
    assert drawn == {"heat-map", "heat-map-dark", "severity", "roc", "failure", "risk-coverage"} | scores
    assert page.open == []
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    embedded = {base64.b64decode(picture.removeprefix("data:image/png;base64,")) for picture in page.pictures}
    assert embedded == {path.read_bytes() for path in (folder / "figures").iterdir()}
    assert all(image["alt"] for image in images)


def test_the_page_needs_nothing_but_itself(page):
    assert page.pictures
    assert page.alone


def test_the_table_holds_every_number_of_the_statistics_the_best_detector_first(page, statistics):
    order = sorted(statistics["detectors"], key=lambda name: -statistics["detectors"][name]["mean"]["auroc"])
    first_cells = [row[0] for row in page.rows]
    places = [next(i for i, cell in enumerate(first_cells) if label_of(name) in cell) for name in order]
    assert places == sorted(places)
    for name in order:
        cells = page.rows_of(label_of(name))[0]
        row = statistics["detectors"][name]
        columns = ("far", "near", "covariate", "covariate_severe", "nonsense", "mean")
        assert cells[0::2] == [
            f"{row[c]['auroc']:.3f} {row[c]['low']:.2f}\N{EN DASH}{row[c]['high']:.2f}" for c in columns
        ]
        assert cells[1::2] == [f"{row[c]['fpr_at_95_in_kept']:.2f}" for c in columns]


def test_both_verdicts_are_counted_and_what_neither_flags_is_listed(page, statistics, records, tmp_path):
    assert page.rows_of("wrong masks")[0] == ["26", "14", "6", "20", "0.52"]
    assert page.rows_of("far")[0] == ["34", "20", "9", "27", "\N{EN DASH}"]
    assert page.rows_of("BrainTumour, missed_scan")[0][1:] == ["12.3", "0.207", "0.400", "\N{EN DASH}"]
    assert "0.86 [0.70, 0.95]" in page.words
    bare = {key: value for key, value in statistics.items() if key != "both_verdicts"}
    without = Page(write_ood_page(tmp_path, "multitask", records, bare, FACTS, []).read_text())
    assert "What a user is warned of" in page.words
    assert "What a user is warned of" not in without.words


def test_best_tied_and_networkless_detectors_are_marked_in_words(page, statistics):
    def marks(name):
        return next(row[0] for row in page.rows if label_of(name) in row[0]).split()

    for name, row in statistics["detectors"].items():
        rank = row["mean"]["rank"]
        assert ("best" in marks(name)) == (rank == "first")
        assert ("tied" in marks(name)) == (rank == "tied")
        assert ("network" in marks(name)) == (name in ("ihf", "volume"))


def test_the_strengths_of_graded_shifts_are_shown_with_their_unit(page):
    assert page.rows_of("noise")[-1] == ["0.02", "0.05", "0.1", "0.15", "0.25", "of the intensity range"]
    assert not page.rows_of("inverted")


def test_the_headline_counts_the_verdicts(page, records, statistics):
    mine = [r for r in records if r.detector == statistics["verdict"]["detector"]]
    far, familiar = ([r.rejected for r in mine if r.group == group] for group in ("far", "in_distribution"))
    people = {r.patient for r in mine if r.group == "in_distribution"}
    alarms = {r.patient for r in mine if r.group == "in_distribution" and r.rejected}
    assert (
        f"At {ALPHA} = 0.05 Fusion flagged {sum(far)} of {len(far)} far images and raised a false alarm on "
        f"{len(alarms)} of {len(people)} patients ({sum(familiar)} of {len(familiar)} in-distribution images)."
    ) in page.words
    mean = statistics["detectors"]["fusion"]["mean"]["auroc"]
    assert f"The best detector in the mean is Fusion, AUROC {mean:.3f}; tied with it:" in page.words
    assert WHY in page.words
    assert page.rows_of("Fusion")[1] == [
        f"{sum(r.rejected for r in mine if r.group == group)} / {sum(r.group == group for r in mine)}"
        for group in ("in_distribution", "far", "near", "covariate", "control", "nonsense")
    ]


def test_false_alarms_stand_by_task_beside_what_the_procedure_gives(page, statistics):
    alarms = statistics["false_alarms"]["fusion"]
    for task, row in {**alarms["tasks"], "all tasks": alarms}.items():
        shown = f"{row['rate']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
        expected = "0.04" if task == "all tasks" else "0.03"
        assert [str(row["people"]), str(row["people_flagged"]), shown, expected] in page.rows_of(task)


@pytest.mark.usefixtures("undrawn")
def test_intervals_of_few_patients_are_marked(tmp_path, records, statistics):
    first = statistics["detectors"]["fusion"]
    few = {**first, "far": {**first["far"], "reliable": False}}
    marked = {**statistics, "detectors": {**statistics["detectors"], "fusion": few}}
    cells = Page(write_ood_page(tmp_path, "run", records, marked, {}, []).read_text()).rows_of("Fusion")[0]
    assert [cell.endswith("\N{DAGGER}") for cell in cells[0::2]] == [True, False, False, False, False, False]


def test_the_verdict_is_the_first_detectors_where_none_is_named(records, statistics):
    unnamed = {**statistics, "verdict": {"alpha": 0.05}}
    assert sentences(records, unnamed)[0].startswith(f"At {ALPHA} = 0.05 Spectral (as published) flagged")


def test_rivals_that_are_behind_are_said_to_be(records, statistics):
    detectors = {name: {"mean": {"auroc": value["mean"]["auroc"], "rank": "behind"}}
                 for name, value in statistics["detectors"].items()}  # fmt: skip
    detectors["fusion"]["mean"]["rank"] = "first"
    assert sentences(records, {**statistics, "detectors": detectors})[1].endswith(", ahead of all others.")
    for value in detectors.values():
        del value["mean"]["rank"]
    assert "ahead" not in sentences(records, {**statistics, "detectors": detectors})[1]


def test_the_data_note_stands_in_every_caption(page):
    figures = sum(tag == "figcaption" for tag, _ in page.tags)
    captions = sum(tag == "p" and attributes.get("class") == "caption" for tag, attributes in page.tags)
    assert page.words.count(NOTE) == 1 + figures + captions


def test_images_and_patients_are_counted_once_however_many_detectors_saw_them(page, records):
    for group, seen in images_of(records).items():
        mine = [r for r in records if r.detector == "ihf" and r.group == group]
        assert seen["images"] == len(mine)
        assert seen["patients"] == len({r.patient for r in mine})
        assert page.rows_of(group)[-1][1:] == [
            str(seen[key]) for key in ("conditions", "images", "patients", "labelled")
        ]


def test_every_cell_of_the_heat_map_is_the_auroc_against_the_in_distribution_images(records, statistics):
    values = aurocs(records)
    figure = heat_map(values, statistics)
    order = detectors_by_mean(statistics)
    numbers = [text.get_text() for axes in figure.axes for text in axes.texts]
    expected = []
    for where in conditions_of(records):
        for name in order:
            mine = [r for r in records if r.detector == name]
            inside = [r.score for r in mine if r.group == "in_distribution"]
            outside = [r.score for r in mine if (r.group, r.condition, r.severity) == where]
            auroc = roc_auc_score([0] * len(inside) + [1] * len(outside), inside + outside)
            assert values[name][where] == pytest.approx(auroc)
            expected.append(f"{auroc:.2f}")
    assert numbers == expected
    columns = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert columns[0] == "Fusion (best)"
    assert [column.removesuffix(" (best)").removesuffix(" (tied)") for column in columns] == [
        label_of(name) for name in order
    ]


def test_conditions_are_grouped_and_controls_stand_apart(records, statistics):
    conditions = conditions_of(records)
    assert [where.group for where in conditions] == sorted(
        (where.group for where in conditions), key=["far", "near", "covariate", "nonsense", "control"].index
    )
    assert [c.severity for c in conditions if c.name == "blur"] == [1, 3, 5]
    cells, controls, _ = heat_map(aurocs(records), statistics).axes
    assert [label.get_text() for label in controls.get_yticklabels()] == ["Controls: 0.5 is right", "flip"]
    rows = [label.get_text() for label in cells.get_yticklabels()]
    assert rows[:3] == ["Far", "OtherPhantom", r"Leg\$"]
    assert "flip" not in rows


def test_a_severity_curve_runs_through_the_aurocs_of_its_shift(records, statistics):
    values = aurocs(records)
    figure = severity_curves(values, statistics)
    assert [axes.get_title() for axes in figure.axes] == ["noise", "blur", "wrong spacing"]
    for axes, shift in zip(figure.axes, ("noise", "blur", "wrong_spacing"), strict=True):
        curve = max((line for line in axes.lines if len(line.get_xdata()) == 3), key=lambda line: line.get_linewidth())
        assert list(curve.get_xdata()) == [1, 3, 5]
        assert list(curve.get_ydata()) == [values["fusion"]["covariate", shift, level] for level in (1, 3, 5)]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == [*map(label_of, shown_by_name(statistics)), "all others"]


def test_named_lines_differ_without_colour(statistics):
    shown = shown_by_name(statistics)
    assert shown[:2] == ["fusion", "spectral_published"]
    assert {"entropy", "ihf", "volume"} <= set(shown)
    looks = style.SCORE_LOOKS[: len(shown)]
    assert len({look.marker for look in looks}) == len({(str(look.dashes), look.shade) for look in looks}) == len(shown)


def test_roc_has_a_panel_a_group_and_the_auroc_of_the_table(records, statistics):
    figure = roc_by_group(records, ["far", "near"], statistics)
    for axes, group in zip(figure.axes, ("far", "near"), strict=True):
        legend = [text.get_text() for text in axes.get_legend().get_texts()]
        assert legend[0] == f"Fusion, AUROC {statistics['detectors']['fusion'][group]['auroc']:.3f}"
        (curve,) = [line for line in axes.lines if str(line.get_label()).startswith("Fusion")]
        area = np.trapezoid(curve.get_ydata(), curve.get_xdata())
        assert area == pytest.approx(statistics["detectors"]["fusion"][group]["auroc"])


def test_tasks_have_their_colours_and_the_threshold_is_conformal(records, statistics):
    line = threshold(records, "spectral_published", 0.05)
    held_out = sorted(r.score for r in records if r.detector == "spectral_published" and r.group == "calibration")
    assert line == held_out[math.ceil(25 * 0.95) - 1]
    (axes,) = scores_by_group(records, "spectral_published", line, statistics).axes
    assert [dashed.get_xdata()[0] for dashed in axes.lines if dashed.get_linestyle() == "--"] == [line]
    rows = [label.get_text().split("  (")[0] for label in axes.get_yticklabels()]
    assert rows[:3] == ["LiverCT", "KidneyT2", "HeartPET"]
    assert {"far: OtherPhantom", "near: OtherScanner", "covariate, severity 5", "nonsense: constant"} <= set(rows)
    for row, colour in enumerate(style.task_colours(rows[:3]).values()):
        (median,) = lines_of(axes, colour)
        assert round(np.mean(median.get_ydata())) == row
    flagged = {(r.condition, r.severity, r.case) for r in records if r.detector == "spectral_published" and r.rejected}
    above = {(r.condition, r.severity, r.case) for r in records
             if r.detector == "spectral_published" and r.score > line and r.group != "calibration"}  # fmt: skip
    assert flagged == above


def test_scores_far_beyond_the_in_distribution_ones_get_a_wide_axis(records, statistics):
    far = [Record("spectral_published", "far", "Odd", 0, "", "a", "a", 1e6)]
    assert scores_by_group(records, "spectral_published", math.inf, statistics).axes[0].get_xscale() == "linear"
    assert (
        scores_by_group([*records, *far], "spectral_published", math.inf, statistics).axes[0].get_xscale() == "symlog"
    )


def test_the_page_says_what_rejecting_would_have_gained(page, records, statistics):
    for name in leading(statistics):
        known = [r for r in records if r.detector == name and r.dice is not None and r.group != "calibration"]
        rest = sorted(known, key=lambda r: r.score)[: len(known) - math.ceil(0.1 * len(known))]
        gain = rejecting(records, name)
        assert gain.before == pytest.approx(np.mean([r.dice for r in known]))
        assert gain.after == pytest.approx(np.mean([r.dice for r in rest]))
        assert gain.after > gain.before
        said = f"would have raised mean Dice from {gain.before:.2f} to {gain.after:.2f}."
        assert f"({gain.rejected} of {len(known)} images) {said}" in page.words
    for name, value in statistics["failure"].items():
        assert page.rows_of(label_of(name))[-1] == [f"{value['spearman']:.3f}", f"{value['aurc']:.3f}"]


def test_the_failure_figures_show_every_labelled_image(records, statistics):
    names = ["fusion", "spectral_published"]
    for axes, name in zip(score_against_dice(records, names, statistics).axes, names, strict=True):
        points = {tuple(point) for point in axes.collections[0].get_offsets()}
        assert points == {(r.score, r.dice) for r in labelled(records, name)}
        assert f"{abs(statistics['failure'][name]['spearman']):.2f}" in axes.texts[0].get_text()
    (axes,) = risk_coverage_curves(records, statistics).axes
    curves = [line for line in axes.lines if len(line.get_xdata()) > 2]
    assert len(curves) == len(statistics["detectors"]) + 1
    ends = [line.get_ydata()[-1] for line in curves]
    np.testing.assert_allclose(ends, ends[0])


@pytest.mark.usefixtures("undrawn")
def test_without_calibration_images_no_verdict_is_given(tmp_path):
    records = make_records(calibration=2)
    page = Page(write_ood_page(tmp_path, "run", records, make_statistics(records), {}, []).read_text())
    too_few = "too few calibration patients (6; at least 19 are needed)"
    assert f"No verdict can be given at {ALPHA} = 0.05: {too_few}." in page.words
    assert "flagged by" not in page.words
    assert math.isinf(threshold(records, "spectral_published", 0.05))


@pytest.mark.parametrize("odd", ["no near", "no labels", "one detector", "no shifts", "nulls", "familiar alone"])
def test_what_is_missing_is_left_out_and_said(tmp_path, odd):
    records = make_records(
        **{
            "no near": {"near": False},
            "no labels": {"labels": False},
            "one detector": {"detectors": {"knn": 2.0}},
            "nulls": {"tasks": {"Liver": 1}, "severities": (0,)},
        }.get(odd, {})
    )
    if odd in ("no shifts", "familiar alone"):
        kept = ("in_distribution", "calibration", "far") if odd == "no shifts" else ("in_distribution", "calibration")
        records = [r for r in records if r.group in kept]
    statistics = make_statistics(records) if odd not in ("no shifts", "familiar alone") else {
        "scores": make_statistics(make_records())["scores"],
        "detectors": {name: {} for name in ("spectral_published", "entropy")}, "verdict": {"alpha": 0.05}
    }  # fmt: skip
    if odd == "no labels":
        del statistics["failure"]
    if odd == "nulls":
        for row in statistics["detectors"].values():
            for value in row.values():
                value.update(dict.fromkeys(value))
    page = Page(write_ood_page(tmp_path, "run", records, statistics, {}, []).read_text())
    drawn = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert page.open == []
    assert not {"None", "nan", "inf"} & set(re.findall(r"\w+", page.words))
    if odd == "no near":
        assert "Not measured, and not in the mean: near." in page.words
        assert page.rows_of("near") == [["the same organ from another scanner, population or pipeline", "not measured"]]
    if odd == "no labels":
        assert not {"failure", "risk-coverage"} & drawn
        assert "Silent failure" not in page.words
    if odd == "one detector":
        assert drawn >= {"scores-knn", "failure"}
    if odd == "no shifts":
        assert "severity" not in drawn
        assert "Not measured, and not in the mean: near, covariate, nonsense." in page.words
    if odd == "familiar alone":
        assert not {"heat-map", "roc"} & drawn


@pytest.mark.usefixtures("undrawn")
def test_names_from_the_data_are_escaped_in_the_page(tmp_path):
    records = make_records({"<em>odd</em>": 2.0}, {"<i>Liver</i>": 2}, ("noise",))
    written = write_ood_page(tmp_path, "<script>", records, make_statistics(records), {}, ["<q>why</q>"])
    page = Page(written.read_text())
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not {"em", "i", "q"} & {tag for tag, _ in page.tags}
    assert "<em>odd</em>" in page.words
    assert "<q>why</q>" in page.words


def test_the_same_benchmark_gives_the_same_files_and_replaces_an_earlier_one(tmp_path, request):
    records = make_records({"spectral_published": 2.0, "ihf": 1.0}, {"Liver": 2}, ("noise",))
    for name in ("first", "second"):
        statistics = make_statistics(records)
        write_ood_page(tmp_path / name, "run", records, statistics, FACTS, [])
    files = sorted(path.relative_to(tmp_path / "first") for path in (tmp_path / "first").rglob("*.*"))
    assert len(files) == 1 + 8
    assert all((tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes() for file in files)
    request.getfixturevalue("undrawn")
    fewer = [r for r in records if r.group != "covariate"]
    write_ood_page(tmp_path / "second", "run", fewer, statistics, FACTS, [])
    assert not (tmp_path / "second" / "figures" / "severity.png").exists()
