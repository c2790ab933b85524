"""The page of a test pictures what went wrong, says in words what that is, and names the cases to look at first."""

from base64 import b64decode
from io import BytesIO

import numpy as np
import pytest
from html_page import Page
from matplotlib.image import imread

from medmtl.report.html import p_in_words, p_value
from medmtl.report.orientation import VARIABLE, in_words
from medmtl.report.slices import CaseSlices
from medmtl.report.stack import SIDE, SLICES, Stack
from medmtl.report.test.cases import first_cases, pictured_cases
from medmtl.report.test.page import SLIDERS
from medmtl.report.test.sentences import conclusions
from medmtl.report.test.write import write_report
from medmtl.results.test import EvaluationResult, build_report


@pytest.fixture(scope="module")
def evaluation(make_case):
    liver = [make_case(f"liver_{i}", dice=0.9 - 0.02 * i, patient=f"p{i}") for i in range(6)]
    given = {"p_value": 1 / 21, "scores": {"spectral": 0.3}}
    cases = [
        *liver,
        make_case("silent", dice=0.3, mask_reliable=True),
        make_case("warned", dice=0.1, mask_reliable=False, reasons=["the mask is <small>"]),
        make_case("alarm", dice=0.8, rejected=True, **given),
        make_case("passed", "Knee", "out", rejected=False, p_value=0.31),
        make_case("passed too", "Knee", "out", rejected=False, p_value=0.41),
        make_case("found", "Knee", "out", rejected=True, **given),
    ]
    return EvaluationResult("run", cases, 0.05, "spectral", threshold=0.2, calibration_patients=[20])


@pytest.fixture(scope="module")
def page(tmp_path_factory, evaluation):
    image = np.random.default_rng(0).normal(size=(16, 14, 12)).astype(np.float32)
    truth = np.zeros(image.shape, bool)
    truth[4:9, 4:9, 3:8] = True
    probability = np.roll(truth, 1, axis=0) * np.float32(0.9)
    stack = Stack.of(image, (1, 1, 1), (-2, 2), None, truth, probability)
    planes = CaseSlices.cut(image, truth, probability, (1, 1, 1))
    slices = {
        (case.dataset, case.case): CaseSlices(planes.planes, planes.grey, stack=stack) for case in evaluation.cases
    }
    return Page(write_report(tmp_path_factory.mktemp("report"), evaluation, {}, slices, {}).read_text())


def test_every_missed_and_every_falsely_flagged_image_is_pictured_and_called_so(page):
    assert page.open == []
    assert page.alone
    assert "Missed: OOD images that were accepted (2)" in page.words
    assert "False alarms: in-distribution images that were flagged (1)" in page.words
    shown = [given["alt"] for tag, given in page.tags if tag == "img"]
    for name in ("passed", "passed too", "alarm"):
        assert f"Slices of {name}" in shown
    assert "Slices of found" not in shown
    least = "p ≤ 0.048, the least that 20 patients allow, score 0.300 with the threshold at 0.200"
    assert f"An in-distribution image that was flagged as OOD: {least}." in page.words.replace(
        "\N{NO-BREAK SPACE}", " "
    )
    rows = {row[1]: row for row in page.rows if len(row) > 8}
    assert rows["passed"][3] == "accepted: missed"
    assert rows["alarm"][3] == "flagged: false alarm"
    assert (rows["found"][3], rows["found"][4]) == ("flagged", "≤ 0.048")
    assert (rows["liver_1"][3], rows["liver_1"][4]) == ("accepted", "0.500")
    assert any("(flagged above 0.200)" in cell for cell in page.cells)


def test_a_case_in_the_table_leads_to_its_pictures(page):
    links = {given["href"] for tag, given in page.tags if tag == "a"}
    places = {given["id"] for tag, given in page.tags if tag == "section"}
    assert len(places) == 6  # best, worst, the worst without a warning, two missed, a false alarm
    assert {f"#{place}" for place in places} <= links


def test_the_first_screen_says_what_to_conclude_and_which_cases_to_look_at(page, evaluation):
    first = first_cases(pictured_cases(evaluation))
    assert [each.result.case for each in first] == ["silent", "passed too", "alarm"]
    report = build_report(evaluation)
    assert conclusions(report)[1:] == [
        "1 of 2 masks with Dice below 0.6 comes without any warning.",
        "An accepted image is not proof: 2 of 3 OOD images were accepted.",
    ]
    before, _, _ = page.words.partition("Accuracy")
    for said in (*conclusions(report), "Look first at Liver, silent", "Knee, passed too", "no verdict warns of it"):
        assert said in before


def test_where_all_went_well_the_worst_masks_are_looked_at(make_case):
    cases = [make_case(f"{task}{i}", task, dice=0.9 - 0.1 * i) for task in ("A", "B") for i in range(3)]
    evaluation = EvaluationResult("run", [*cases, make_case("x", "Knee", "out", rejected=True)], 0.05, "spectral")
    assert [each.result.case for each in first_cases(pictured_cases(evaluation))] == ["A2", "B2"]
    assert conclusions(build_report(evaluation))[-1] == (
        "No OOD image of 1 was missed; another kind of image still may be."
    )
    assert first_cases(pictured_cases(EvaluationResult("run", [], 0.05))) == []


def test_the_direction_of_a_metric_is_marked_and_dice_has_an_interval(page, evaluation):
    heads = {cell for cell in page.cells if cell.endswith(("↑", "↓"))}
    assert {"Dice ↑", "HD95, mm ↓", "ECE ↓", "Brier ↓", "AUROC ↑"} <= heads
    assert "gap" in page.cells
    found = build_report(evaluation)["tasks"]["Liver"]["accuracy_intervals"]["dice"]
    assert f"[{found['low']:.3f}, {found['high']:.3f}]" in page.words


def test_a_slider_leafs_through_the_slices_of_each_pictured_case(page):
    sliders = [given for tag, given in page.tags if tag == "input" and given["type"] == "range"]
    assert len(sliders) == 6 <= SLIDERS
    boxes = [given["value"] for tag, given in page.tags if tag == "input" and given["type"] == "checkbox"]
    assert boxes == ["truth", "mask", "probability"] * 6
    assert sliders[0]["value"] == "4"  # of slices 1 to 9, two beyond the organ at 3 to 7, the middle one
    assert in_words() in page.words


@pytest.mark.parametrize("shape", [(16, 14, 12), (200, 150, 40), (1, 1, 1), (40, 30, 4)])
def test_a_strip_of_slices_is_small(shape):
    generator = np.random.default_rng(0)
    image = generator.normal(size=shape).astype(np.float32)
    truth = generator.random(shape) < 0.3
    stack = Stack.of(image, (1.0, 1.0, 3.0), (-2, 2), None, truth, truth * np.float32(0.8))
    assert stack.count <= min(SLICES, shape[2])
    assert 0 <= stack.start < stack.count
    width, height = stack.size
    assert max(stack.size) <= SIDE
    for layer in stack.layers.values():  # the page moves a strip by whole slices
        assert decoded(layer).shape[:2] == (stack.count * height, width)
    assert set(stack.layers) == {"scan", "truth", "mask", "probability"}
    # Noise is the worst case: of a scan it is a fifth of this.
    assert sum(map(len, stack.layers.values())) < 3 * SIDE * SIDE * SLICES


def test_a_strip_shows_the_patient_as_slices_do(monkeypatch):
    """Truth on the patient's right, of a scan with thick sagittal slices seen from the front otherwise."""
    image = np.random.default_rng(0).normal(size=(20, 20, 10)).astype(np.float32)
    truth = np.zeros(image.shape, bool)
    truth[15:18, 5:15, 2:8] = True

    def strip():
        stack = Stack.of(image, (1, 1, 1.5), (-2, 2), None, truth)
        pixels = decoded(stack.layers["truth"])[..., 3]
        return stack, np.flatnonzero(pixels.any(axis=0)).mean() / pixels.shape[1]

    stack, place = strip()
    assert (stack.view, stack.letters["left"], place < 0.3) == ("axial", "R", True)
    monkeypatch.setenv(VARIABLE, "neurological")
    stack, place = strip()
    assert (stack.letters["left"], place > 0.7) == ("L", True)
    assert Stack.of(image, (4, 1, 1), (-2, 2), None, truth).view == "sagittal"


def decoded(address):
    """The pixels of a picture within a page."""
    head, _, content = address.partition(",")
    return imread(BytesIO(b64decode(content)), format="jpeg" if "jpeg" in head else "png")


def test_the_least_p_value_is_said_to_be_the_least():
    assert p_value(1 / 21, [20]) == "≤\N{NO-BREAK SPACE}0.048"
    assert p_value(1 / 24, [23]) == "≤\N{NO-BREAK SPACE}0.042"
    assert p_value(1 / 21, [84]) == p_value(1 / 21) == "0.048"
    assert p_value(None) == "\N{EN DASH}"
    assert p_in_words(1 / 85, [20, 84]).replace("\N{NO-BREAK SPACE}", " ") == (
        "p ≤ 0.012, the least that 84 patients allow"
    )
    assert p_in_words(0.31, [20]).replace("\N{NO-BREAK SPACE}", " ") == "p = 0.310"


def test_names_of_any_length_have_files(tmp_path, make_case, undrawn):
    names = ["x" * 234 + end for end in "ab"]
    cases = [make_case(name, rejected=True, p_value=0.05) for name in names]
    planes = CaseSlices.cut(np.zeros((8, 8, 8)), np.zeros((8, 8, 8), bool), np.zeros((8, 8, 8)), (1, 1, 1))
    evaluation = EvaluationResult("run", cases, 0.05, "spectral", threshold=0.2, calibration_patients=[20])
    write_report(tmp_path, evaluation, {}, {(case.dataset, case.case): planes for case in cases}, {})
    assert (tmp_path / "report.json").is_file()
    flagged = list((tmp_path / "figures").glob("slices-false-alarm-*.png"))
    assert len(flagged) == 2
    assert max(len(path.name) for path in flagged) < 200
