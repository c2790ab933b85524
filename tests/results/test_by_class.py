"""Classes and routing in report.json and cases.csv, against numpy."""

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from case_sample import bins_of, report_of

from medmtl.calibration.metrics.bins import bin_volume
from medmtl.calibration.metrics.definitions import METRICS, summarise
from medmtl.results.by_class import class_bins, classes_of
from medmtl.results.case import CaseResult
from medmtl.results.test import cases_table, write_cases

NEW_KEYS = {"classes", "foreground_dice", "foreground_cases", "routing"}


@pytest.fixture
def classed(make_case) -> list[CaseResult]:
    """A task with two classes, of which one case marks the second alone, and one with a single class."""
    generator = np.random.default_rng(0)
    found = []
    for index, names in enumerate((["tail"], ["head", "tail"], ["head", "tail"])):
        tables = {}
        for name in names:
            label = generator.integers(0, 2, 50 + 100 * index)
            tables[name] = {"whole": bins_of(np.clip(0.3 + 0.5 * label * generator.random(len(label)), 0, 1), label)}
        accuracy = {name: {"dice": generator.random(), "hd95_mm": 4.0, "asd_mm": 1.0 + index} for name in names}
        given = {"classes": accuracy, "class_calibration": tables, "foreground_dice": 0.9 - 0.1 * index}
        found.append(make_case(f"h{index}", "Hippocampus", **given))
    return [*found, make_case("l", "Liver")]


def test_each_class_is_summed_up_over_the_cases_that_mark_it(classed):
    task = report_of(classed)["tasks"]["Hippocampus"]
    assert list(task["classes"]) == classes_of(classed) == ["head", "tail"]
    assert task["cases"] == 3
    for name, cases in (("head", classed[1:3]), ("tail", classed[:3])):
        own = task["classes"][name]
        assert own["cases"] == len(cases)
        for metric in ("dice", "asd_mm"):
            values = [case.classes[name][metric] for case in cases]
            expected = {"mean": pytest.approx(np.mean(values)), "std": pytest.approx(np.std(values, ddof=1))}
            assert own[metric] == {**expected, "undefined": 0}
    assert task["foreground_cases"] == 3
    assert task["foreground_dice"] == {"mean": pytest.approx(0.8), "std": pytest.approx(0.1), "undefined": 0}


def test_all_classes_as_one_are_judged_over_the_cases_that_mark_all(classed):
    results = [replace(classed[0], foreground_dice=None, calibration={}), *classed[1:]]
    task = report_of(results)["tasks"]["Hippocampus"]
    assert (task["cases"], task["foreground_cases"]) == (3, 2)
    assert task["foreground_dice"] == {
        "mean": pytest.approx(0.75),
        "std": pytest.approx(np.std([0.8, 0.7], ddof=1)),
    } | {"undefined": 0}
    assert [row["foreground_dice"] for row in cases_table(results)] == [None, 0.8, 0.7, None]


def test_calibration_of_a_class_is_pooled_over_its_voxels_and_beside_it_the_mean_over_cases(make_case):
    generator = torch.Generator().manual_seed(0)
    volumes = [
        (torch.rand(size, generator=generator, dtype=torch.float64), torch.rand(size, generator=generator) < 0.3)
        for size in (50, 500)
    ]
    accuracy = {"classes": {"head": {"dice": 0.5}}}
    results = [
        make_case(str(i), class_calibration={"head": {"band": bin_volume(*volume)}}, **accuracy)
        for i, volume in enumerate(volumes)
    ]
    own = report_of(results)["tasks"]["Liver"]["classes"]["head"]
    together = bin_volume(torch.cat([p for p, _ in volumes]), torch.cat([y for _, y in volumes]))
    assert own["calibration"] == {"band": pytest.approx(summarise(together))}
    cases = [summarise(bin_volume(*volume)) for volume in volumes]
    expected = {metric: np.mean([case[metric] for case in cases]) for metric in METRICS}
    assert own["calibration_per_case"] == {"band": pytest.approx(expected)}
    assert class_bins(results, "band")["head"].count.tolist() == together.count.tolist()
    assert class_bins(results, "whole") == {}


def test_calibration_of_a_class_after_scaling_is_pooled_too_where_it_was_scaled(make_case):
    before, after = bins_of([0.1, 0.9], [0, 1]), bins_of([0.3, 0.7], [0, 1])
    tables = [{"head": {"band": after}, "tail": {"band": before}}, {"head": {"band": after}}]
    accuracy = {name: {"dice": 0.5} for name in ("head", "tail")}
    results = [
        make_case(str(i), classes=accuracy, class_calibration=tables[0], class_calibration_scaled=own)
        for i, own in enumerate(tables)
    ]
    classes = report_of(results)["tasks"]["Liver"]["classes"]
    assert classes["head"]["calibration_scaled"] == {"band": pytest.approx(summarise(after + after))}
    assert classes["tail"]["calibration_scaled"] == {"band": pytest.approx(summarise(before))}
    plain = report_of([replace(case, class_calibration_scaled={}) for case in results])
    assert "calibration_scaled" not in plain["tasks"]["Liver"]["classes"]["head"]


def test_a_class_without_foreground_in_a_label_is_undefined_there_and_nowhere_else(make_case):
    values = [{"head": {"dice": dice}, "tail": {"dice": 0.5}} for dice in (math.nan, 0.4)]
    task = report_of([make_case(str(i), classes=own) for i, own in enumerate(values)])["tasks"]["Liver"]
    assert task["classes"]["head"]["dice"] == {"mean": pytest.approx(0.4), "std": None, "undefined": 1}
    assert task["classes"]["tail"]["dice"]["undefined"] == 0


def test_routing_sets_the_told_task_beside_the_recognised_one_and_lists_the_wrong_cases(make_case):
    rows = [("a", 0.9, 0.9, "Liver"), ("b", 0.8, 0.1, "Heart"), ("c", math.nan, math.nan, "Heart")]
    results = [
        make_case(case, dice=told, dice_recognised=recognised, nearest_task=task)
        for case, told, recognised, task in rows
    ]
    routing = report_of([*results, make_case("o", "Other", "out", nearest_task="Heart")])["routing"]
    assert (routing["cases"], routing["wrong"]) == (3, 2)
    assert (routing["dice_told"], routing["dice_recognised"]) == (pytest.approx(0.85), pytest.approx(0.5))
    assert routing["wrong_cases"] == [
        {"dataset": "Liver", "case": "b", "nearest_task": "Heart", "dice_told": 0.8, "dice_recognised": 0.1},
        {"dataset": "Liver", "case": "c", "nearest_task": "Heart", "dice_told": None, "dice_recognised": None},
    ]


def test_cases_csv_has_columns_of_classes_only_where_there_are_some(classed, make_case, tmp_path):
    write_cases(tmp_path / "cases.csv", classed)
    with (tmp_path / "cases.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    columns = [f"{name}/{metric}" for name in ("head", "tail") for metric in ("dice", "hd95_mm", "asd_mm")]
    assert list(rows[0])[4:14] == ["dice", "hd95_mm", "asd_mm", *columns, "foreground_dice"]
    assert [row["head/dice"] for row in rows] == ["", *(str(case.classes["head"]["dice"]) for case in classed[1:3]), ""]
    assert "dice_recognised" not in rows[0]
    plain = cases_table([make_case("a"), make_case("b")])
    assert not any("/" in key or key == "foreground_dice" for key in plain[0])
    routed = cases_table([make_case("a", dice_recognised=0.3), make_case("b", "Other", "out")])
    assert [row["dice_recognised"] for row in routed] == [0.3, None]
    assert list(routed[0])[:8] == [*list(plain[0])[:7], "dice_recognised"]


def test_with_one_class_a_task_and_one_output_nothing_is_added(results, classed):
    assert not NEW_KEYS & {key for part in (report_of(results), *report_of(results)["tasks"].values()) for key in part}
    liver = report_of(classed)["tasks"]["Liver"]
    assert liver.keys() == report_of(results)["tasks"]["Liver"].keys()
    report = report_of(classed)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    bare = [replace(case, classes={}, class_calibration={}, foreground_dice=None) for case in classed]
    alone = report_of(bare)["tasks"]["Hippocampus"]
    both = report["tasks"]["Hippocampus"]
    assert {key: value for key, value in both.items() if key not in NEW_KEYS} == alone
