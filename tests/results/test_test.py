import csv
import json
import math

import numpy as np
import pytest
import torch
from case_sample import report_of

from medmtl.calibration.metrics.bins import bin_volume
from medmtl.calibration.metrics.definitions import METRICS, summarise
from medmtl.report.test.sentences import headline
from medmtl.results.case import best_and_worst, pooled_bins, tasks_of
from medmtl.results.test import cases_table, write_cases


def test_dice_is_the_mean_and_sample_deviation_over_cases_and_every_task_counts_once(make_case):
    results = [make_case(str(i), "Liver", dice=dice) for i, dice in enumerate((0.6, 0.8, 1.0))]
    results += [make_case("x", "Heart", dice=0.4)]
    report = report_of(results)
    assert report["tasks"]["Liver"]["cases"] == 3
    assert report["tasks"]["Liver"]["dice"] == {
        "mean": pytest.approx(0.8),
        "std": pytest.approx(0.2),
        "undefined": 0,
    }
    assert report["tasks"]["Heart"]["dice"] == {"mean": pytest.approx(0.4), "std": None, "undefined": 0}
    assert report["mean"]["dice"] == pytest.approx(0.6)


@pytest.mark.parametrize("metric", ["hd95_mm", "asd_mm"])
def test_surface_distances_are_summed_up_as_dice_is(make_case, metric):
    results = [make_case(str(i), "Liver", **{metric: value}) for i, value in enumerate((2.0, 6.0, math.nan, None))]
    results += [make_case("x", "Heart", **{metric: 10.0})]
    report = report_of(results)
    liver = {"mean": pytest.approx(4.0), "std": pytest.approx(math.sqrt(8)), "undefined": 1}
    assert report["tasks"]["Liver"][metric] == liver
    assert report["mean"][metric] == pytest.approx(7.0)


def test_figures_after_scaling_have_the_keys_of_those_before_and_leave_them_alone(make_case):
    tables = {
        name: bin_volume(torch.tensor(p), torch.tensor([0, 1])) for name, p in (("a", [0.1, 0.8]), ("b", [0.4, 0.6]))
    }
    scaled = [make_case(name, calibration_scaled={"band": table}) for name, table in tables.items()]
    plain = report_of([make_case("a"), make_case("b")])
    report = report_of([*scaled, make_case("c", "Heart")], scaling={"method": "platt"})
    task = report["tasks"]["Liver"]
    assert task["calibration"] == plain["tasks"]["Liver"]["calibration"]
    assert task["calibration_scaled"] == {"band": pytest.approx(summarise(tables["a"] + tables["b"]))}
    assert task["calibration_scaled"]["band"].keys() == task["calibration"]["band"].keys()
    assert report["tasks"]["Heart"]["calibration_scaled"] == {}
    assert report["mean"]["calibration_scaled"] == task["calibration_scaled"]
    assert (report["scaling"], plain["scaling"]) == ({"method": "platt"}, None)
    rows = cases_table([*scaled, make_case("x", "Other", "out")])
    assert [row["nll_band_scaled"] for row in rows] == [summarise(table)["nll"] for table in tables.values()] + [None]
    assert list(cases_table([make_case("a")])[0]) == [key for key in rows[0] if not key.endswith("_scaled")]


def test_an_undefined_dice_is_counted_and_left_out_of_the_mean(make_case):
    results = [make_case("a", dice=0.5), make_case("b", dice=math.nan), make_case("c", dice=None)]
    dice = report_of(results)["tasks"]["Liver"]["dice"]
    assert dice == {"mean": pytest.approx(0.5), "std": None, "undefined": 1}


def test_calibration_is_that_of_all_voxels_together_and_beside_it_the_mean_over_cases(make_case):
    generator = torch.Generator().manual_seed(0)
    volumes = [
        (torch.rand(size, generator=generator, dtype=torch.float64), torch.rand(size, generator=generator) < 0.3)
        for size in (50, 500)
    ]
    results = [make_case(str(i), calibration={"band": bin_volume(*volume)}) for i, volume in enumerate(volumes)]
    task = report_of(results)["tasks"]["Liver"]
    together = bin_volume(torch.cat([p for p, _ in volumes]), torch.cat([y for _, y in volumes]))
    assert task["calibration"]["band"] == pytest.approx(summarise(together))
    cases = [summarise(bin_volume(*volume)) for volume in volumes]
    for metric in METRICS:
        expected = np.mean([case[metric] for case in cases])
        assert task["calibration_per_case"]["band"][metric] == pytest.approx(expected)
    assert abs(task["calibration"]["band"]["ece"] - task["calibration_per_case"]["band"]["ece"]) > 1e-3


def test_a_case_without_voxels_in_the_band_does_not_spoil_the_mean_over_cases(make_case):
    empty = bin_volume(torch.zeros(0), torch.zeros(0, dtype=torch.bool))
    full = bin_volume(torch.tensor([0.2, 0.9]), torch.tensor([False, True]))
    results = [make_case("a", calibration={"band": empty}), make_case("b", calibration={"band": full})]
    task = report_of(results)["tasks"]["Liver"]
    assert task["calibration_per_case"]["band"] == pytest.approx(summarise(full))
    alone = report_of(results[:1])["tasks"]["Liver"]
    assert alone["calibration"]["band"] == dict.fromkeys(METRICS)


def test_detection_and_verdict_follow_from_the_scores_and_decisions(results):
    ood = report_of(results, alpha=0.1)["ood"]
    assert (ood["in_cases"], ood["out_cases"]) == (8, 3)
    assert ood["scores"]["spectral"]["auroc"] == 1.0
    # Entropy: 0.15, 0.25, 0.35 against twice 0.1, 0.2, 0.3, 0.4 wins 2 + 4 + 6 of 24 pairs.
    assert ood["scores"]["entropy"]["auroc"] == pytest.approx(12 / 24)
    assert set(ood["scores"]["entropy"]) >= {"auroc", "aupr_out", "fpr_at_95_in_kept", "fpr_at_95_out_found"}
    verdict = ood["verdict"]
    assert (verdict["alpha"], verdict["false_alarm_rate"], verdict["detection_rate"]) == (0.1, 1 / 8, 2 / 3)
    other = ood["datasets"]["Other"]
    assert other.items() >= {"expected": "out", "cases": 3, "decided": 3, "rejected": 2}.items()
    assert ood["note"] is None


def test_people_are_counted_and_not_their_images(make_case):
    """Sarcoma patients recur in three tasks, with an image in each."""
    rows = [("ann_ct", "CT", "ann", True), ("ann_mr", "MR", "ann", False), ("bob_ct", "CT", "bob", False)]
    results = [make_case(case, task, patient=who, rejected=flagged) for case, task, who, flagged in rows]
    results += [make_case(f"x{number}", "Other", "out", patient="eve", rejected=True) for number in range(2)]
    report = report_of(results)
    ood = report["ood"]
    assert (ood["in_cases"], ood["in_people"], ood["out_cases"], ood["out_people"]) == (3, 2, 2, 1)
    assert (report["tasks"]["CT"]["people"], report["tasks"]["MR"]["people"]) == (2, 1)
    alarms = {name: (row["people_flagged"], row["people"]) for name, row in ood["datasets"].items()}
    assert alarms == {"CT": (1, 2), "MR": (0, 1), "Other": (1, 1)}
    assert (ood["false_alarms"]["people_flagged"], ood["false_alarms"]["people"]) == (1, 2)
    # By binomial distribution: one of two is compatible with 1.3 to 98.7 %, none of one with at most 97.5 %.
    assert (ood["false_alarms"]["low"], ood["false_alarms"]["high"]) == pytest.approx((0.0126, 0.9874), abs=1e-4)
    assert (ood["datasets"]["MR"]["low"], ood["datasets"]["MR"]["high"]) == pytest.approx((0, 0.975))


def test_equal_names_of_cases_in_two_tasks_are_not_one_person(make_case):
    assert len({make_case("a", task).person for task in ("CT", "MR")}) == 2
    assert len({make_case("a", task, patient="ann").person for task in ("CT", "MR")}) == 1


def test_an_auroc_has_the_interval_of_its_patients_even_where_it_is_1(make_case):
    def of(inside: int, outside: int, images: int = 1):
        sides = [("Liver", "in", inside, 0.0), ("Other", "out", outside, 1.0)]
        rows = [(task, side, who, base) for task, side, people, base in sides for who in range(people)] * images
        results = [
            make_case(f"{number}", task, side, patient=f"{task}{who}", scores={"entropy": base + 0.01 * who})
            for number, (task, side, who, base) in enumerate(rows)
        ]
        return report_of(results)["ood"]["scores"]["entropy"]

    found = of(21, 9)
    assert (found["auroc"], found["high"], found["reliable"]) == (1, 1, True)
    assert 0.8 < found["low"] < 0.9
    assert of(21, 9, images=3) == found
    assert not of(21, 5)["reliable"]
    assert of(21, 1)["low"] is None


def test_verdicts_on_masks_are_counted_by_whether_the_mask_is_doubtful(make_case):
    results = [
        make_case("a", dice=0.3, mask_reliable=False),
        make_case("b", dice=0.5, mask_reliable=True, rejected=True),
        make_case("c", dice=0.2, mask_reliable=True),
        make_case("d", dice=0.9, mask_reliable=False),
        make_case("e", dice=0.9, mask_reliable=True),
        make_case("f", dice=0.9, mask_reliable=None),  # not counted, like a mask without a Dice
        make_case("g", dice=math.nan, mask_reliable=False),
        make_case("o", "Other", "out", mask_reliable=False),
    ]
    report = report_of(results, mask_threshold=0.25, promise="each task, exactly")
    assert report["ood"]["masks"] == {
        "alpha": 0.05,
        "threshold": 0.25,
        "acceptable_dice": 0.6,
        "doubtful": 3,
        "doubtful_found": 1,
        "doubtful_found_by_either": 2,
        "acceptable": 2,
        "acceptable_flagged": 1,
    }
    assert report["ood"]["verdict"]["promise"] == "each task, exactly"
    assert "It called 1 of 3 masks with Dice below 0.6 not reliable, and 1 of 2 others." in headline(report)


def test_without_a_signature_bank_there_is_no_verdict_and_the_note_says_why(make_case):
    bare = {"scores": {"entropy": 0.2, "max_softmax": 0.1}, "p_value": None, "rejected": None, "nearest_task": None}
    results = [make_case("a", **bare), make_case("b", "Other", "out", **bare)]
    ood = report_of(results, ood_score=None)["ood"]
    assert set(ood["scores"]) == {"entropy", "max_softmax"}
    assert ood["verdict"]["false_alarm_rate"] is ood["verdict"]["detection_rate"] is None
    assert "signature bank" in ood["note"]


def test_with_too_few_validation_cases_the_note_says_that_no_verdict_could_be_given(make_case):
    results = [make_case("a", rejected=None), make_case("b", "Other", "out", rejected=None)]
    ood = report_of(results)["ood"]
    assert "spectral" in ood["scores"]
    assert ood["verdict"]["detection_rate"] is None
    assert "too few validation cases" in ood["note"]


def test_without_ood_cases_no_detection_is_reported(make_case):
    ood = report_of([make_case("a"), make_case("b", rejected=True)])["ood"]
    assert (ood["out_cases"], ood["scores"]) == (0, {})
    assert ood["verdict"]["false_alarm_rate"] == 0.5
    assert ood["verdict"]["detection_rate"] is None
    assert "out-of-distribution" in ood["note"]


def test_a_score_that_is_not_a_number_is_counted_and_left_out(make_case):
    results = [make_case("a", scores={"entropy": math.nan}), make_case("b", scores={"entropy": 0.1})]
    results += [make_case("c", "Other", "out", scores={"entropy": 0.3})]
    entropy = report_of(results)["ood"]["scores"]["entropy"]
    assert (entropy["auroc"], entropy["undefined"]) == (1.0, 1)


def test_a_held_out_task_is_out_of_distribution_whatever_its_labels(make_case):
    results = [make_case("a"), make_case("b", "Heart", "out", dice=0.1)]
    report = report_of(results)
    assert list(report["tasks"]) == tasks_of(results) == ["Liver"]
    assert report["mean"]["dice"] == pytest.approx(0.9)


@pytest.mark.parametrize("dice", [0.5, math.nan, None])
def test_the_report_is_strict_json(make_case, dice):
    empty = bin_volume(torch.zeros(0), torch.zeros(0, dtype=torch.bool))
    results = [make_case(dice=dice, calibration={"band": empty}, scores={"spectral": math.nan})]
    report = report_of(results)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert json.loads(json.dumps(report_of([]), allow_nan=False))["tasks"] == {}


def test_the_table_of_cases_has_one_row_a_case_and_the_same_columns_in_each(results):
    rows = cases_table(results)
    assert [row["case"] for row in rows] == [result.case for result in results]
    assert len({tuple(row) for row in rows}) == 1
    assert list(rows[0])[4:7] == ["dice", "hd95_mm", "asd_mm"]
    assert (rows[0]["hd95_mm"], rows[0]["asd_mm"], rows[-1]["hd95_mm"]) == (4.5, 1.5, None)
    assert rows[0]["ace_band"] == summarise(results[0].calibration["band"])["ace"]
    assert rows[-1]["ace_band"] is None
    assert rows[-1]["spectral"] == results[-1].scores["spectral"]


def test_cases_csv_tells_no_label_from_an_undefined_dice(tmp_path, make_case):
    write_cases(tmp_path / "cases.csv", [make_case("a", dice=math.nan), make_case('b, "c"', dice=None)])
    with (tmp_path / "cases.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["dice"] for row in rows] == ["nan", ""]
    assert rows[1]["case"] == 'b, "c"'
    assert float(rows[0]["spectral"]) == 0.1


def test_best_and_worst_pass_over_cases_without_a_dice(make_case):
    results = [make_case(str(i), dice=dice) for i, dice in enumerate((0.5, math.nan, 0.9, None, 0.2))]
    chosen = best_and_worst(results)
    assert (chosen["best"].dice, chosen["worst"].dice) == (0.9, 0.2)
    assert list(best_and_worst(results[:1])) == ["only"]
    assert best_and_worst(results[1:2]) == {}


def test_pooling_a_region_that_no_case_has_gives_nothing(make_case):
    assert pooled_bins([make_case(calibration={})], "band") is None
