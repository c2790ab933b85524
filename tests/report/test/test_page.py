import base64
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from case_sample import bins_of
from html_page import Page
from zones_sample import histograms, on_a_line

from medmtl.calibration.metrics.intervals import INTERVAL_METRICS
from medmtl.calibration.scaling.class_shares import FittedShares
from medmtl.calibration.scaling.per_task import TaskScalings
from medmtl.calibration.scaling.vector import VectorScaling
from medmtl.calibration.scaling.zones import ZoneHistograms
from medmtl.data.facts import DataFacts
from medmtl.report.html import anchor, number
from medmtl.report.slices import CaseSlices
from medmtl.report.test.sentences import headline
from medmtl.report.test.write import write_report
from medmtl.results.test import EvaluationResult, build_report

NOTE = "Digital phantoms, not patients"


def write(folder, results, facts=None, **given):
    drawn = {name: given.pop(name, {}) for name in ("signatures", "slices")}
    return write_report(folder, evaluation_of(results, **given), facts=facts or {}, **drawn)


def evaluation_of(results, **given):
    values = {"alpha": 0.05, "ood_score": "spectral", "threshold": 0.05} | given
    return EvaluationResult("a run", results, **values)


@pytest.fixture(scope="module")
def inputs():
    generator = np.random.default_rng(0)
    signatures = {"model.2": {dataset: generator.uniform(size=(3, 5)) for dataset in ("Liver", "Heart", "Other")}}
    image = generator.normal(size=(10, 11, 12))
    planes = CaseSlices.cut(image, image > 1, np.clip(image, 0, 1), (1, 1, 2))
    slices = {(task, f"{task}_{index}"): planes for task in ("Liver", "Heart") for index in range(4)}
    return {"signatures": signatures, "slices": slices}


FACTS = {"checkpoint": "best.ckpt", "data_note": NOTE}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, results, inputs):
    folder = tmp_path_factory.mktemp("report")
    assert write(folder, results, FACTS, **inputs) == folder / "report.html"
    return folder


def test_a_report_is_a_page_a_table_a_json_file_and_figures(folder, results):
    report = json.loads((folder / "report.json").read_text())
    assert report == build_report(evaluation_of(results))
    assert len((folder / "cases.csv").read_text().splitlines()) == 1 + len(results)
    bins = json.loads((folder / "bins.json").read_text())
    labelled = [result for result in results if result.calibration]
    assert {(dataset, case) for dataset in bins for case in bins[dataset]} == {(r.dataset, r.case) for r in labelled}
    for result in labelled:
        for region, table in result.calibration.items():
            assert bins[result.dataset][result.case][region] == table.to_dict()
    drawn = {path.stem for path in (folder / "figures").iterdir()}
    slices = {
        f"{kind}-{task}-{rank}"
        for kind in ("slices", "map")
        for task in ("Liver", "Heart")
        for rank in ("best", "worst")
    }
    # Heart_2 has a Dice of 0.5, and no verdict warns of it; Heart_3 is flagged.
    slices |= {"slices-Heart-unwarned", "map-Heart-unwarned"}
    slices |= {f"slices-{anchor('false alarm', 'Heart', 'Heart_3')}"}
    scores = {"score-spectral", "score-entropy", "score-max_softmax"}
    assert drawn == {"dice", "reliability-whole", "reliability-band", "spectra-model.2", "roc"} | scores | slices

    html = Page((folder / "report.html").read_text())
    assert html.open == []
    images = [attributes for tag, attributes in html.tags if tag == "img"]
    embedded = {base64.b64decode(image["src"].removeprefix("data:image/png;base64,")) for image in images}
    assert embedded == {path.read_bytes() for path in (folder / "figures").iterdir()}
    assert all(image["alt"] for image in images)
    words = html.words
    assert headline(report) in words
    assert words.count(NOTE) >= 1 + len(drawn - slices)
    assert "best.ckpt" in words
    assert f"{report['tasks']['Heart']['calibration']['band']['ace']:.4f}" in words
    assert "HD95, mm" in words
    assert f"{report['tasks']['Heart']['hd95_mm']['mean']:.2f} " in words


def test_the_page_needs_nothing_but_itself(folder):
    html = Page((folder / "report.html").read_text())
    assert html.pictures
    assert html.alone


@pytest.mark.usefixtures("undrawn")
def test_a_region_that_follows_from_the_prediction_is_marked(tmp_path, make_case):
    table = make_case().calibration["band"]

    def words(*regions):
        folder = tmp_path / "-".join(regions)
        write(folder, [make_case(calibration=dict.fromkeys(regions, table))])
        return Page((folder / "report.html").read_text()).words

    marked = words("whole", "band", "likely")
    assert "organ and voxels of probability 0.05 or more *" in marked
    assert "band of 5 mm around the organ *" not in marked
    assert "unfit for comparing models" in marked
    assert "mean ECE in the 5 mm band" in marked
    assert "unfit for comparing models" not in words("whole", "band")
    assert "mean ECE over the shell of 5 mm" in words("whole", "shell")


def test_names_from_the_data_are_escaped_and_harmless_as_file_names(tmp_path, make_case):
    results = [
        make_case("<b>bold</b>", "a/../<i>&\"'$", nearest_task="<script>", preprocessing="{{ 1 + 1 }}"),
        make_case("x", "<u>", "out", rejected=True),
    ]
    planes = CaseSlices.cut(np.zeros((4, 4, 4)), np.ones((4, 4, 4), bool), np.zeros((4, 4, 4)), (1, 1, 1))
    slices = {(results[0].dataset, results[0].case): planes}
    html = Page(write(tmp_path, results, {"<em>": "</dd>"}, slices=slices).read_text())
    assert not {"i", "u", "em"} & {tag for tag, _ in html.tags}
    assert [tag for tag, _ in html.tags].count("script") == 1
    assert "<b>bold" not in html.text
    assert "<b>bold</b>" in html.said
    assert "{{ 1 + 1 }}" in html.said
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("bins.json", "cases.csv", "figures", "report.html", "report.json")
    ]


def test_a_second_report_replaces_the_figures_of_the_first(tmp_path, make_case):
    bare = {"calibration": {}, "p_value": None, "rejected": None}
    write(tmp_path, [make_case(scores={"entropy": 0.1}, **bare)])
    assert (tmp_path / "figures" / "score-entropy.png").exists()
    write(tmp_path, [make_case(scores={}, **bare)])
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["dice.png"]
    assert not list(tmp_path.rglob(".*"))


def test_the_same_results_give_the_same_files(tmp_path, make_case):
    results = [make_case(scores={"spectral": 0.1}), make_case("b", "Other", "out", scores={"spectral": 0.2})]
    for name in ("first", "second"):
        write(tmp_path / name, results)
    files = sorted(path.relative_to(tmp_path / "first") for path in (tmp_path / "first").rglob("*.*"))
    assert len(files) == 9
    assert all((tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes() for file in files)


@pytest.mark.parametrize("odd", ["no OOD cases", "no bank", "one case", "only OOD cases", "nothing"])
def test_odd_runs_give_a_page_too(tmp_path, results, make_case, odd):
    bare = {"scores": {"entropy": 0.2}, "p_value": None, "rejected": None, "nearest_task": None}
    given = {
        "no OOD cases": [result for result in results if result.expected == "in"],
        "no bank": [make_case("a", **bare), make_case("b", "Other", "out", **bare)],
        "one case": [make_case(dice=float("nan"))],
        "only OOD cases": [result for result in results if result.expected == "out"],
        "nothing": [],
    }[odd]
    score = None if odd == "no bank" else "spectral"
    html = Page(write(tmp_path, given, ood_score=score, threshold=None).read_text())
    words = html.words
    assert "nan" not in words.lower().split()
    assert "None" not in words
    if odd == "no bank":
        assert "holds no signature bank" in words


@pytest.mark.parametrize("per_task", [True, False])
def test_what_scaling_changed_stands_beside_what_it_did_not(tmp_path, results, per_task):
    probability, chance = torch.rand(2, 500, generator=torch.Generator().manual_seed(0))
    found = {"Liver": histograms(*on_a_line(probability, chance < probability)), "Heart": ZoneHistograms.empty()}
    fitted = TaskScalings.fit(found, "platt", per_task)
    own = {task: found.summary() for task, found in fitted.tasks.items()}
    scaling = {"method": "platt", "single": fitted.single.summary(), "tasks": own}
    scaled = [replace(result, calibration_scaled=result.calibration) for result in results]
    html = Page(write(tmp_path, scaled, scaling=scaling).read_text())
    words = html.words
    report = json.loads((tmp_path / "report.json").read_text())
    assert html.open == []
    assert (
        words.index("Dice and surface distances")
        < words.index("After scaling")
        < words.index("In-distribution or out-of-distribution")
    )
    shown = fitted.tasks["Liver"].scaling if per_task else fitted.single.scaling
    assert str(shown) in words
    assert ("far T = 1.00 (kept)" in words) == ("Heart keeps near T = 1.00" in words) == per_task
    heart = report["tasks"]["Heart"]
    interval = heart["calibration_intervals"]["band"]["nll"]
    nll = f"{heart['calibration']['band']['nll']:.4f} [{interval['low']:.4f}, {interval['high']:.4f}]\N{DAGGER}"
    assert f"{nll} {nll} +0.0000 [0.0000, 0.0000]\N{DAGGER} too few patients" in words
    assert {path.stem for path in (tmp_path / "figures").glob("*-scaled.png")} == {
        f"reliability-{region}-scaled" for region in heart["calibration"]
    }
    ratio = f"{heart['calibration']['band']['volume_ratio']:.2f}"
    assert f"{ratio} {ratio}" in words
    if per_task:
        assert report["scaling"]["tasks"]["Heart"]["nll_before"] is None


def test_the_headline_says_in_words_what_was_found(make_case):
    inside = [make_case(str(i), f"Task{i % 2}", dice=0.8, rejected=i == 0) for i in range(4)]
    outside = [make_case(str(i), "Other", "out", rejected=i < 2) for i in range(3)]

    def of(results):
        return headline(build_report(evaluation_of(results)))

    alpha = "\N{GREEK SMALL LETTER ALPHA}"
    assert of(inside + outside) == (
        f"Mean Dice 0.80 over two tasks. At {alpha} = 0.05 it flagged 2 of 3 OOD volumes and raised a false alarm "
        "on 1 of 4 patients (1 of 4 in-distribution volumes)."
    )
    assert of(inside[1:2] + outside[:1]) == (
        f"Mean Dice 0.80 on Task1. At {alpha} = 0.05 it flagged 1 of 1 OOD volume and raised a false alarm on 0 of "
        "1 patient (0 of 1 in-distribution volume)."
    )
    assert of(inside[1:2]) == (
        f"Mean Dice 0.80 on Task1. At {alpha} = 0.05 it raised a false alarm on 0 of 1 patient "
        "(0 of 1 in-distribution volume). "
        "No out-of-distribution cases were tested."
    )
    assert of([make_case(dice=float("nan"), rejected=None), outside[0]]).startswith("No test case had a Dice")


def test_numbers_that_do_not_exist_are_dashes():
    assert number(0.12345) == "0.123"
    assert number(None) == number(float("nan")) == "\N{EN DASH}"


@pytest.fixture(scope="module")
def classed(make_case):
    accuracy = {"<i>head</i>": {"dice": 0.8123, "hd95_mm": 3.0, "asd_mm": 1.0}, "tail": {"dice": 0.4, "hd95_mm": 9.0}}
    tables = {name: make_case().calibration for name in accuracy}
    given = {"classes": accuracy, "class_calibration": tables, "foreground_dice": 0.9}
    return [
        make_case("a", "Hippocampus", dice_recognised=0.25, nearest_task="Liver", **given),
        make_case("b", "Hippocampus", dice_recognised=0.9, nearest_task="Hippocampus", **given),
        make_case("c", "Liver", dice_recognised=0.9),
    ]


def test_classes_have_a_table_of_accuracy_and_of_calibration_and_a_diagram(tmp_path, classed):
    html = Page(write(tmp_path, classed).read_text())
    words = html.words
    assert html.open == []
    assert "<i>head</i> 2 0.812 0.000 3.00 0.00" in words
    assert "all classes as one 2 0.900 0.000" in words
    report = json.loads((tmp_path / "report.json").read_text())
    band = report["tasks"]["Hippocampus"]["classes"]["tail"]["calibration"]["band"]
    assert f"tail {' '.join(f'{band[metric]:.4f}' for metric in ('ece', 'ace', 'mce', 'brier', 'nll'))}" in words
    drawn = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert {name for name in drawn if name.startswith("classes-")} == {
        f"classes-Hippocampus-{region}" for region in ("whole", "band")
    }
    images = [attributes["alt"] for tag, attributes in html.tags if tag == "img"]
    assert "Reliability diagram of the classes of Hippocampus over the band of 5 mm around the class" in images


@pytest.mark.parametrize("refused", [False, True])
def test_calibration_of_classes_after_scaling_stands_beside_that_before(tmp_path, classed, refused):
    vector = VectorScaling(torch.tensor([0.5, 0.75]).double(), torch.tensor([0.1, -0.1]).double())
    names = ["<i>head</i>", "tail"]
    fit = FittedShares(vector, names, 4, 999, 0.4321, 0.1234)
    if refused:
        fit = replace(fit, scaling=None, refused="2 people have labels of every class, and 3 are needed")
    single = TaskScalings.fit({}, "temperature", per_task=False).single.summary()
    scaling = {"method": "temperature", "single": single, "tasks": {}, "shares": {"Hippocampus": fit.summary()}}
    other = bins_of([0.2, 0.7], [0, 1])
    after = {name: {"whole": other, "band": other} for name in names}
    results = [
        replace(case, class_calibration_scaled=after if case.classes else {}, calibration_scaled=case.calibration)
        for case in classed
    ]
    html = Page(write(tmp_path, results, scaling=scaling).read_text())
    assert html.open == []
    tail = json.loads((tmp_path / "report.json").read_text())["tasks"]["Hippocampus"]["classes"]["tail"]
    pairs = [
        f"{tail[kind]['band'][metric]:.4f}"
        for metric in INTERVAL_METRICS
        for kind in ("calibration", "calibration_scaled")
    ]
    assert " ".join(pairs) in html.words
    assert ("<i>head</i> w = 0.50, b = 0.10, tail w = 0.75, b = -0.10" in html.words) != refused
    assert ("(0.4321 before and 0.1234 after" in html.words) != refused
    assert ("stay those of the network: 2 people have labels of every class" in html.words) == refused
    drawn = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert {f"classes-Hippocampus-{region}-scaled" for region in ("whole", "band")} <= drawn


@pytest.mark.usefixtures("undrawn")
def test_the_page_says_what_recognising_the_task_costs_and_which_cases_got_another_head(tmp_path, classed):
    words = Page(write(tmp_path, classed).read_text()).words
    said = "0.9000 with the task told and 0.6833 with it recognised: 1 of 3 test cases got the output of another task."
    assert said in words
    assert "Hippocampus a Liver 0.900 0.250" in words
    assert "Hippocampus b Hippocampus" not in words


def test_without_classes_and_outputs_per_task_the_page_does_not_mention_them(folder):
    words = Page((folder / "report.html").read_text()).words
    for word in ("all classes as one", "Recognised tasks", "Classes of", "a colour each"):
        assert word not in words


def test_the_page_says_of_which_data_the_model_is_and_what_it_is_for(tmp_path, results):
    facts = DataFacts("CT", "<liver>", "CC0", "A. Author 2020", {"train": 9, "test": 3}, {"train": 5, "test": 2})
    write(tmp_path, results, data={"Liver": facts})
    page = Page((tmp_path / "report.html").read_text())
    text = " ".join(" ".join(page.said).split())
    assert "no diagnosis and no treatment may rest on it" in text
    for said in ("<liver>", "CC0", "9 (5)", "3 (2)", "A. Author 2020", "10.1109/TAI.2022.3159510"):
        assert said in text, said
    assert json.loads((tmp_path / "report.json").read_text())["data"]["Liver"]["images"] == {"train": 9, "test": 3}
