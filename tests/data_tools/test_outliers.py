"""Outliers: outliers are reported, usual values are not, and many outliers are reported once."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import median_abs_deviation, norm

from medmtl.data_tools.outliers import modified_z, outliers
from medmtl.results.dataset import CaseFacts, Finding, Intensity

RNG = np.random.default_rng(0)


def case(number: int, **changes: object) -> CaseFacts:
    usual = CaseFacts(
        dataset="Liver",
        case=f"c{number}",
        patient=f"c{number}",
        part="training",
        images=(),
        shape=(100 + number % 3, 100, 50),
        spacing=(0.8, 0.8, 2.5),
        axes="LPS",
        intensity=(Intensity(-1024, -1000, -100 + 5 * (number % 4), 300 + 10 * (number % 5), 1500),),
        volumes_ml={1: 1500 + 30 * (number % 7), 2: 20 * 2 ** (number % 6)},
    )
    return replace(usual, **changes)


def found(*cases: CaseFacts) -> list[Finding]:
    return list(outliers([*(case(number) for number in range(20)), *cases], {1: "liver", 2: "tumour"}))


def test_the_modified_z_score_is_that_of_iglewicz_and_hoaglin() -> None:
    values = RNG.normal(5, 2, 31)
    expected = (values - np.median(values)) / median_abs_deviation(values) * norm.ppf(0.75)
    assert modified_z(values) == pytest.approx(expected, rel=1e-4)
    assert modified_z([1, 1, 1, 1, 2]).tolist() == [0, 0, 0, 0, np.inf]


def test_usual_cases_are_passed_over() -> None:
    assert not found()


@pytest.mark.parametrize(
    ("changes", "rule", "text"),
    [
        ({"spacing": (0.8, 0.8, 5.0)}, "spacing", "voxel size head-foot is 5 mm, the median 2.5 mm"),
        ({"axes": "PIR", "spacing": (0.8, 5.0, 0.8), "shape": (100, 25, 100)}, "spacing", "head-foot"),
        ({"shape": (100, 100, 10)}, "extent", "extent head-foot is 25 mm"),
        ({"volumes_ml": {1: 15.0, 2: 40}}, "volume", "volume of label 1 (liver) is 15 ml"),
        ({"volumes_ml": {2: 40}}, "absent", "label 1 (liver) is absent"),
        ({"axes": "RAS"}, "orientation", "orientation RAS, and LPS in 20 of 21 cases"),
        ({"intensity": (Intensity(0, 24, 924, 1330, 2500),)}, "level", "are higher by 10"),
        ({"intensity": (Intensity(-10, -10, -1, 3, 15),)}, "contrast", "range of intensities"),
        ({"intensity": (Intensity(-1024, -1000, -100, 300, 1500),) * 2}, "channels", "channels 2, and 1"),
    ],
)
def test_outliers_are_reported(changes: dict[str, object], rule: str, text: str) -> None:
    notes = found(case(99, **changes))
    assert {note.case for note in notes} == {"c99"}
    assert {note.severity for note in notes} == {"note"}
    assert any(note.rule == rule and text in note.message for note in notes)


def test_much_air_and_another_scale_are_no_shift() -> None:
    air = case(97, intensity=(Intensity(-1024, -1000, -900, 300, 1500),))
    scaled = case(98, intensity=(Intensity(0, 100, 1000, 9000, 12000),))
    assert "level" not in {note.rule for note in found(air, scaled)}


def test_a_small_difference_is_none_even_where_all_others_are_alike() -> None:
    assert not found(case(99, spacing=(0.8, 0.8, 3.0)))


def test_many_that_stand_out_are_told_once() -> None:
    notes = found(*(case(number, volumes_ml={1: 10 + number, 2: 40}) for number in range(90, 96)))
    (note,) = [note for note in notes if note.rule == "volume"]
    assert (note.dataset, note.case) == ("Liver", "")
    assert "in 6 of 26 cases" in note.message


def test_a_few_cases_have_no_outliers() -> None:
    assert not list(outliers([case(0), case(1), case(2, spacing=(9, 9, 9))], {}))


def test_a_channel_without_a_finite_value_stands_for_nothing() -> None:
    notes = found(case(99, intensity=(Intensity(*(float("nan"),) * 5),)))
    assert not {note.rule for note in notes} & {"level", "contrast"}
