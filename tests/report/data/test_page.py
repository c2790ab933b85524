"""The page of `medmtl data check`: self-contained, worst findings first, and what users wrote is text."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from html_page import Page

from medmtl.report.data.page import SHOWN, write_data_page
from medmtl.results.dataset import CaseFacts, Finding, Intensity, worst_first
from medmtl.results.dataset_summary import headline, summarise

NAMES = {1: "liver", 2: "tumour <i>"}


def case(name: str, **changes: object) -> CaseFacts:
    usual = {
        "shape": (10, 20, 30),
        "spacing": (1.0, 2.0, 3.0),
        "axes": "RAS",
        "dtype": "int16",
        "intensity": (Intensity(-5, 0, 50, 90, 100),),
        "volumes_ml": {1: 1500.0, 2: 12.0},
        "thumbnail": b"\x89PNG",
    }
    return CaseFacts("Liver", name, name, "training", (f"{name}.nii",), **{**usual, **changes})


UNREADABLE = CaseFacts("Liver", "bad", "bad", "training", ("bad.nii",))
CASES = [case("good"), case("odd", volumes_ml={1: 3.0}), UNREADABLE, case("empty", volumes_ml={})]
FINDINGS = worst_first(
    [
        Finding("note", "volume", "Liver", "odd", "volume of label 1 is 3 ml", "look"),
        Finding("warning", "empty", "Liver", "empty", "the label is empty"),
        Finding("error", "unreadable", "Liver", "bad", "bad.nii cannot be read <script>alert(1)</script>"),
    ]
)


def page(tmp_path: Path, cases: list[CaseFacts] = CASES, findings: list[Finding] = FINDINGS, note: str = "") -> str:
    path = tmp_path / "check.html"
    write_data_page(path, "Liver", cases, findings, [summarise("Liver", cases, NAMES)], {"Liver": NAMES}, note)
    return path.read_text()


def test_it_is_self_contained_and_what_users_wrote_is_escaped(tmp_path: Path) -> None:
    text = page(tmp_path)
    assert Page(text).alone
    assert text.count("<script") == 1
    assert "&lt;script&gt;" in text
    assert "tumour &lt;i&gt;" in text


def test_the_worst_case_is_shown_first(tmp_path: Path) -> None:
    shown = re.findall(r"<b>(\w+)</b>", page(tmp_path).split('<div class="cases">')[1].split("<h2")[0])
    assert shown == ["bad", "empty", "odd", "good"]


def test_the_headline_counts_cases_and_findings() -> None:
    assert headline(CASES, FINDINGS) == "4 cases, 1 cannot be used: 1 error, 1 warning, 1 note."
    twice = [*FINDINGS, Finding("error", "shape", "Liver", "bad", "another")]
    assert headline(CASES, twice) == "4 cases, 1 cannot be used: 2 errors, 1 warning, 1 note."
    assert headline(CASES[:1], []) == "1 case, all can be used: no findings."


def test_a_dataset_is_summarised_over_the_cases_that_could_be_read() -> None:
    summary = summarise("Liver", [*CASES, case("lps", axes="LPS", spacing=(1.0, 2.0, 6.0))], NAMES)
    assert (summary.labelled, summary.test, summary.patients) == (5, 0, 5)
    assert summary.axes == "RAS (3), LPS (1)"
    ranges = {each.name: each[1:] for each in summary.ranges}
    assert ranges["voxel size head-foot (mm)"] == (4, 3, 3, 6)
    assert ranges["label 1 liver (ml)"] == (3, 3, 1500, 1500)
    assert ranges["channel 0, percentile 99"] == (4, 90, 90, 90)


def test_of_very_many_cases_the_worst_are_pictured(tmp_path: Path) -> None:
    many = [case(f"c{number}") for number in range(SHOWN)]
    text = page(tmp_path, [*many, *CASES])
    assert f"The first {SHOWN} of {SHOWN + len(CASES)} are shown" in text
    assert "<b>bad</b>" in text
    assert f"<b>c{SHOWN - 1}</b>" not in text


def test_every_dataset_has_pictures(tmp_path: Path) -> None:
    liver = [case(f"c{number}") for number in range(SHOWN)]
    spleen = [replace(case(f"s{number}"), dataset="Spleen") for number in range(SHOWN)]
    path = tmp_path / "check.html"
    summaries = [summarise(name, [*liver, *spleen], {}) for name in ("Liver", "Spleen")]
    write_data_page(path, "both", [*liver, *spleen], [], summaries, {})
    shown = re.findall(r"<b>([cs]\d+)</b>", path.read_text())
    assert shown[:4] == ["c0", "s0", "c1", "s1"]
    assert len(shown) == SHOWN


@pytest.mark.parametrize("note", ["", "Digital phantoms, not patients"])
def test_what_must_be_said_of_the_data_is_said(note: str, tmp_path: Path) -> None:
    assert ("Digital phantoms" in page(tmp_path, note=note)) == bool(note)


def test_a_dataset_of_which_nothing_could_be_read_has_a_page(tmp_path: Path) -> None:
    assert "no picture" in page(tmp_path, [UNREADABLE], FINDINGS[:1])


def test_findings_lead_to_the_pictures_of_their_cases_and_the_worst_are_named_first(tmp_path: Path) -> None:
    found = Page(page(tmp_path))
    links = [given["href"] for tag, given in found.tags if tag == "a"]
    places = [given["id"] for tag, given in found.tags if given.get("class") == "case"]
    assert len(places) == len(CASES)
    assert set(links) >= {f"#{place}" for place in places[:3]}
    before, _, _ = found.words.partition("severity")
    assert "Look first at bad : error," in before
