"""Intervals and gains in `report.json` against a loop over resamples, and what is said of them."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from case_sample import report_of

from medmtl.bootstrap import RESAMPLES, Resamples
from medmtl.calibration.metrics.bins import BinTable, bin_volume
from medmtl.calibration.metrics.definitions import METRICS, ace, summarise
from medmtl.calibration.metrics.intervals import INTERVAL_METRICS
from medmtl.report.test.sentences import gain_sentences
from medmtl.report.test.write import write_report
from medmtl.results.case import pooled_bins
from medmtl.results.test import EvaluationResult

SCALING = {"method": "temperature", "per_task": True}


def scaled_cases(make_case, dataset, cases, sharpness, patients=None):
    """Cases whose logits are `sharpness` times too large, with a patient's own shift, and the same after scaling."""
    generator = torch.Generator().manual_seed(len(dataset))
    found = []
    for case in range(cases):
        logit = torch.randn(400, generator=generator, dtype=torch.float64)
        chance = torch.sigmoid(logit + 0.3 * torch.randn(1, generator=generator, dtype=torch.float64))
        label = torch.rand(400, generator=generator) < chance
        before, after = (bin_volume(torch.sigmoid(factor * logit), label, bins=5) for factor in (sharpness, 1.0))
        patient = patients[case] if patients else None
        tables = {"calibration": {"band": before}, "calibration_scaled": {"band": after}}
        found.append(make_case(f"{dataset}_{case}", dataset, patient=patient, **tables))
    return found


def metric_of(results, name, scaled):
    table = pooled_bins(results, "band", scaled)
    return METRICS[name](table)


def drawn_cases(results, times):
    people = sorted(times)
    return [r for person in people for _ in range(int(times[person])) for r in results if r.person == person]


@pytest.fixture(scope="module")
def liver(make_case):
    """Seven cases of six patients."""
    return scaled_cases(make_case, "Liver", 7, 3.0, ["ann", "bob", "cid", "dan", "eve", "fay", "bob"])


@pytest.fixture(scope="module")
def heart(make_case):
    """Three cases, of patients that are named by them."""
    return scaled_cases(make_case, "Heart", 3, 3.0)


def test_intervals_and_gain_are_those_of_a_loop_over_resampled_patients(liver):
    people = sorted({result.person for result in liver})
    resamples = Resamples.of(np.ones((6, 1)), RESAMPLES)
    task = report_of(liver, scaling=SCALING)["tasks"]["Liver"]
    before, after = np.empty((2, RESAMPLES, len(INTERVAL_METRICS)))
    for row, drawn in enumerate(resamples.drawn):
        chosen = drawn_cases(liver, dict(zip(people, drawn, strict=True)))
        for column, name in enumerate(INTERVAL_METRICS):
            before[row, column] = metric_of(chosen, name, scaled=False)
            after[row, column] = metric_of(chosen, name, scaled=True)
    for column, name in enumerate(INTERVAL_METRICS):
        found = task["calibration_intervals"]["band"][name], task["calibration_scaled_intervals"]["band"][name]
        gain = task["scaling_gain"]["band"][name]
        middles = [task[kind]["band"][name] for kind in ("calibration", "calibration_scaled")]
        assert gain["difference"] == pytest.approx(middles[1] - middles[0], abs=1e-12)
        for one, values, middle in (
            (found[0], before[:, column], middles[0]),
            (found[1], after[:, column], middles[1]),
            (gain, (after - before)[:, column], middles[1] - middles[0]),
        ):
            low, high = resamples.interval(values) - values.mean() + middle
            floor = -np.inf if one is gain else 0.0
            assert (one["low"], one["high"]) == pytest.approx((max(low, floor), high), abs=1e-10)
            assert (one["n"], one["reliable"]) == (6, True)
            assert one["low"] <= middle <= one["high"]
        assert set(found[0]) == {"low", "high", "n", "reliable"}


def test_the_mean_over_tasks_draws_each_task_s_patients_and_counts_tasks_once(liver, heart):
    report = report_of([*liver, *heart], scaling=SCALING)
    gain = report["mean"]["scaling_gain"]["band"]["nll"]
    assert gain["difference"] == pytest.approx(
        np.mean([report["tasks"][task]["scaling_gain"]["band"]["nll"]["difference"] for task in ("Liver", "Heart")])
    )
    # No patient is in both tasks: groups of six and three, in the order of the names of their patients.
    people = sorted({result.person for result in [*liver, *heart]})
    counts = np.array([[any(r.person == person for r in task) for task in (liver, heart)] for person in people])
    resamples = Resamples.of(counts.astype(float), RESAMPLES)
    values = []
    for drawn in resamples.drawn:
        times = dict(zip(people, drawn, strict=True))
        changes = [
            metric_of(chosen, "nll", scaled=True) - metric_of(chosen, "nll", scaled=False)
            for chosen in (drawn_cases(liver, times), drawn_cases(heart, times))
        ]
        values.append(np.mean(changes))
    low, high = resamples.interval(np.array(values)) - np.mean(values) + gain["difference"]
    assert (gain["low"], gain["high"]) == pytest.approx((low, high), abs=1e-10)
    assert (gain["n"], gain["reliable"]) == (9, True)


def test_the_verdict_follows_from_the_interval_and_needs_six_patients(make_case, liver, heart):
    report = report_of([*liver, *heart], scaling=SCALING)
    assert report["tasks"]["Liver"]["scaling_gain"]["band"]["nll"]["verdict"] == "better"
    assert report["tasks"]["Heart"]["scaling_gain"]["band"]["nll"]["verdict"] == "no evidence: n too small"
    assert report["tasks"]["Heart"]["scaling_gain"]["band"]["nll"]["high"] < 0
    swapped = [replace(r, calibration=r.calibration_scaled, calibration_scaled=r.calibration) for r in liver]
    same = [replace(r, calibration_scaled=r.calibration) for r in liver]
    for results, verdict in ((swapped, "worse"), (same, "no evidence")):
        gain = report_of(results, scaling=SCALING)["tasks"]["Liver"]["scaling_gain"]["band"]["nll"]
        assert gain["verdict"] == verdict
    assert (gain["difference"], gain["low"], gain["high"]) == (0, 0, 0)
    json.dumps(report, allow_nan=False)


def test_a_task_of_one_patient_has_values_and_no_interval(make_case, liver):
    alone = scaled_cases(make_case, "Heart", 2, 3.0, ["zoe", "zoe"])
    report = report_of([*liver, *alone], scaling=SCALING)
    for row in (report["tasks"]["Heart"], report["mean"]):
        gain = row["scaling_gain"]["band"]["ece"]
        assert (gain["low"], gain["high"], gain["verdict"]) == (None, None, "no evidence: n too small")
        assert gain["difference"] == pytest.approx(
            row["calibration_scaled"]["band"]["ece"] - row["calibration"]["band"]["ece"]
        )


def test_without_scaling_there_are_intervals_and_no_gain(make_case):
    empty = bin_volume(torch.zeros(0), torch.zeros(0, dtype=torch.bool), bins=5)
    results = [make_case(str(case)) for case in range(3)] + [make_case("x", calibration={"band": empty})]
    report = report_of(results)
    for row in (report["tasks"]["Liver"], report["mean"]):
        interval = row["calibration_intervals"]["band"]["brier"]
        brier = summarise(results[0].calibration["band"])["brier"]
        assert (interval["low"], interval["high"]) == pytest.approx((brier, brier))  # all patients are alike
        assert interval["n"] == 3
        assert row["calibration_scaled_intervals"] == row["scaling_gain"] == {}
    assert gain_sentences(report) == []
    nothing = report_of(results[3:])
    assert nothing["tasks"]["Liver"]["calibration_intervals"] == {}


def test_the_page_shows_what_follows_from_the_cases_and_bins_beside_it(tmp_path, liver):
    bare = [replace(result, calibration_scaled={}) for result in liver]
    page = write_report(tmp_path, EvaluationResult("run", bare, 0.05, "spectral"), {}, {}, {}).read_text()
    bins = json.loads((tmp_path / "bins.json").read_text())["Liver"]
    with (tmp_path / "cases.csv").open(newline="") as stream:
        whose = {row["case"]: row["patient"] for row in csv.DictReader(stream)}
    tables = {case: BinTable.from_dict(regions["band"]) for case, regions in bins.items()}
    people = sorted(set(whose.values()))
    resamples = Resamples.of(np.ones((len(people), 1)), RESAMPLES)
    values = []
    for drawn in [np.ones(len(people)), *resamples.drawn]:
        times = dict(zip(people, drawn, strict=True))
        chosen = [tables[case] for case in tables for _ in range(int(times[whose[case]]))]
        values.append(ace(sum(chosen[1:], chosen[0])))
    middle, *resampled = values
    low, high = resamples.interval(np.array(resampled)) - np.mean(resampled) + middle
    assert f"<td>{middle:.3f} [{low:.3f}, {high:.3f}]</td>" in page


def test_what_scaling_did_is_said_in_words(make_case, liver, heart):
    def words(results):
        return " ".join(gain_sentences(report_of(results, scaling=SCALING)))

    assert words(liver) == "In the band scaling lowers NLL, ECE, ACE and Brier score on Liver."
    alone = "Taken alone, Heart has too few patients to tell."
    assert (
        words([*liver, *heart])
        == f"In the band scaling lowers NLL, ECE, ACE and Brier score in the mean over tasks. {alone}"
    )
    assert words(heart) == "There are too few patients to tell the effect of scaling from chance."
    same = [replace(r, calibration_scaled=r.calibration) for r in liver]
    assert words(same) == "In the band scaling has no clear effect on NLL, ECE, ACE and Brier score on Liver."
