"""The comparison of an experiment's runs: its numbers, verdicts and files."""

import csv
import json
import os
from collections.abc import Callable, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from scipy.stats import wilcoxon

from medmtl.calibration.metrics.bins import bin_volume
from medmtl.errors import RunError
from medmtl.experiment.analysis.compare import compare, print_comparison, verdict_sentences, write_compare
from medmtl.experiment.analysis.records import read_records

METRICS = ("dice", "hd95_mm", "asd_mm", "ece_band", "ace_band", "brier_band", "nll_band")
PAIR_KEYS = {"a", "b", "metric", "difference", "low", "high", "n", "p", "p_holm", "smallest_p_holm"}
PAIR_KEYS |= {"rank_biserial", "cohen_dz", "verdict"}


def compared(folder: Path) -> dict[str, Any]:
    """The comparison, which strict JSON must be able to hold."""
    comparison = compare(read_records(folder))
    assert json.loads(json.dumps(comparison, allow_nan=False)) == comparison
    return comparison


def pair_of(row: Mapping[str, Any], a: str, b: str, metric: str = "dice") -> dict[str, Any]:
    (found,) = [pair for pair in row["pairs"] if (pair["a"], pair["b"], pair["metric"]) == (a, b, metric)]
    return found


def scores(values: np.ndarray, patient: str = "p") -> dict[str, float]:
    return {f"{patient}{index:02}": float(value) for index, value in enumerate(values)}


def test_the_comparison_has_every_part_of_its_schema(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    values = {"Liver": scores(np.linspace(0.5, 0.9, 5)), "Heart": scores(np.linspace(0.4, 0.8, 4), "q")}
    write_run("multitask", values)
    for task in values:
        write_run("dedicated", {task: values[task]})
        write_run("transfer", {task: values[task]})
    found = compared(tmp_path)
    assert (found["schema"], found["experiment"], found["data_note"], found["level"]) == (2, tmp_path.name, "", 0.05)
    assert found["budget"] == {
        "notion": "steps",
        "text": "600 optimizer steps of 4 patches a model, pre-training included",
    }
    assert list(found["arms"]) == ["dedicated", "transfer", "multitask"]
    assert found["arms"]["dedicated"]["label"] == "dedicated training"
    assert list(found["metrics"]) == list(METRICS)
    assert [metric for metric, about in found["metrics"].items() if about["higher_is_better"]] == ["dice"]
    assert found["metrics"]["hd95_mm"] == {
        **{"label": "95th-percentile Hausdorff distance", "unit": "mm", "higher_is_better": False, "digits": 2}
    }
    assert list(found["tasks"]) == ["Liver", "Heart"]
    for row in (*found["tasks"].values(), found["mean"]):
        assert list(row["arms"]) == list(found["arms"])
        for metrics in row["arms"].values():
            assert list(metrics) == list(METRICS)
            assert all(set(value) == {"mean", "low", "high", "n", "undefined"} for value in metrics.values())
        arms = [("transfer", "dedicated"), ("multitask", "dedicated"), ("multitask", "transfer")]
        assert [(pair["a"], pair["b"]) for pair in row["pairs"] if pair["metric"] == "asd_mm"] == arms
        assert all(set(pair) == PAIR_KEYS for pair in row["pairs"])
    assert (found["sizes"], found["refused"], found["missing"]) == ({}, [], [])
    assert [(run["arm"], run["task"]) for run in found["runs"]] == [
        *(("dedicated", "Heart"), ("dedicated", "Liver"), ("multitask", None)),
        *(("transfer", "Heart"), ("transfer", "Liver")),
    ]
    assert set(found["runs"][0]) == {"name", "arm", "task", "seed", "fold", "cases", "steps", "fingerprint"}


def test_numbers_of_one_task_are_those_worked_out_apart(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    rng = np.random.default_rng(0)
    dedicated = rng.uniform(0.5, 0.7, 12)
    multitask = dedicated + rng.uniform(-0.02, 0.2, 12)
    write_run("dedicated", {"Liver": scores(dedicated)})
    write_run("multitask", {"Liver": scores(multitask)})
    row = compared(tmp_path)["tasks"]["Liver"]
    dice = row["arms"]["multitask"]["dice"]
    assert dice["mean"] == pytest.approx(multitask.mean())
    assert dice["low"] < multitask.mean() < dice["high"]
    assert (dice["n"], dice["undefined"]) == (12, 0)
    pair, differences = pair_of(row, "multitask", "dedicated"), multitask - dedicated
    assert pair["difference"] == pytest.approx(differences.mean())
    assert pair["p"] == pair["p_holm"] == pytest.approx(wilcoxon(differences, method="exact").pvalue)
    assert pair["smallest_p_holm"] == 2.0**-11
    assert pair["cohen_dz"] == pytest.approx(differences.mean() / differences.std(ddof=1))
    assert pair["verdict"] == "better"
    same = pair_of(row, "multitask", "dedicated", "nll_band")
    assert (same["difference"], same["p"], same["verdict"]) == (0, 1, "no evidence")


def test_a_lower_distance_is_better(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    rng = np.random.default_rng(0)
    for arm, shift in (("dedicated", 2.0), ("multitask", 0.0)):
        far = rng.uniform(1, 2, 10) + shift
        write_run(arm, {"Liver": {f"p{i}": {"hd95_mm": float(value)} for i, value in enumerate(far)}})
    row = compared(tmp_path)["tasks"]["Liver"]
    assert pair_of(row, "multitask", "dedicated", "hd95_mm")["difference"] < 0
    assert pair_of(row, "multitask", "dedicated", "hd95_mm")["verdict"] == "better"


def test_seeds_are_averaged_before_anything_else(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    rng = np.random.default_rng(0)
    dice = {arm: rng.uniform(0.4, 0.9, (3, 8)) for arm in ("dedicated", "multitask")}
    for arm, by_seed in dice.items():
        for seed, values in enumerate(by_seed):
            write_run(arm, {"Liver": scores(values)}, seed=seed)
    row = compared(tmp_path)["tasks"]["Liver"]
    means = {arm: values.mean(axis=0) for arm, values in dice.items()}
    assert row["arms"]["dedicated"]["dice"]["mean"] == pytest.approx(means["dedicated"].mean())
    assert row["arms"]["dedicated"]["dice"]["n"] == 8
    pair = pair_of(row, "multitask", "dedicated")
    assert pair["n"] == 8
    assert pair["p"] == pytest.approx(wilcoxon(means["multitask"] - means["dedicated"], method="exact").pvalue)
    assert pair["difference"] == pytest.approx((means["multitask"] - means["dedicated"]).mean())


def test_folds_add_their_patients(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    for arm, value in (("dedicated", 0.5), ("multitask", 0.7)):
        for fold in range(3):
            write_run(arm, {"Liver": {f"fold{fold}_{case}": value + 0.01 * case for case in range(4)}}, fold=fold)
    found = compared(tmp_path)
    pair = pair_of(found["tasks"]["Liver"], "multitask", "dedicated")
    assert (pair["n"], pair["p"]) == (12, 2.0**-11)
    assert any("Cross-validation" in note for note in found["notes"])


def test_cases_of_one_patient_count_once(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    patients = {f"c{index}": f"p{index // 4}" for index in range(12)}
    for arm, value in (("dedicated", 0.5), ("multitask", 0.6)):
        write_run(arm, {"Liver": {case: value + 0.001 * int(case[1:]) for case in patients}}, patients=patients)
    found = compared(tmp_path)
    row = found["tasks"]["Liver"]
    assert row["arms"]["dedicated"]["dice"]["n"] == 3
    pair = pair_of(row, "multitask", "dedicated")
    assert (pair["n"], pair["p"], pair["smallest_p_holm"]) == (3, 0.25, 0.25)
    assert pair["verdict"] == "no evidence: n too small"
    assert any("from 6 patients a task on" in note for note in found["notes"])


def test_a_patient_in_several_tasks_counts_once_in_the_mean(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    """Three tasks show the same four people: the mean over tasks has four patients, not twelve."""
    tasks = ("SarcomaMR", "SarcomaCT", "SarcomaPET")
    for arm, value in (("dedicated", 0.5), ("multitask", 0.6)):
        write = {task: scores(value + 0.1 * index + np.arange(4) / 100) for index, task in enumerate(tasks)}
        for part in [write] if arm == "multitask" else [{task: write[task]} for task in tasks]:
            write_run(arm, part)
    mean = compared(tmp_path)["mean"]
    assert mean["arms"]["dedicated"]["dice"]["mean"] == pytest.approx(0.6 + 0.015)
    assert mean["arms"]["dedicated"]["dice"]["n"] == 4
    pair = pair_of(mean, "multitask", "dedicated")
    assert (pair["n"], pair["p"]) == (4, 0.125)
    assert pair["difference"] == pytest.approx(0.1)


def test_the_mean_weighs_tasks_equally_whatever_their_number_of_cases(
    tmp_path: Path, write_run: Callable[..., Path]
) -> None:
    values = {"Liver": scores(np.full(20, 0.9)), "Heart": scores(np.full(3, 0.5), "q")}
    write_run("multitask", values)
    dice = compared(tmp_path)["mean"]["arms"]["multitask"]["dice"]
    assert (dice["mean"], dice["n"]) == (pytest.approx(0.7), 23)


def test_undefined_values_are_left_out_of_both_sides_and_counted(
    tmp_path: Path, write_run: Callable[..., Path]
) -> None:
    values = np.linspace(0.5, 0.8, 7)
    lacking = np.r_[np.nan, values[1:]] + 0.1
    for seed in (0, 1):
        write_run("dedicated", {"Liver": scores(values)}, seed=seed)
        write_run("multitask", {"Liver": scores(lacking)}, seed=seed)
    found = compared(tmp_path)
    row = found["tasks"]["Liver"]
    assert row["arms"]["dedicated"]["dice"]["n"] == 7
    assert (row["arms"]["multitask"]["dice"]["n"], row["arms"]["multitask"]["dice"]["undefined"]) == (6, 2)
    pair = pair_of(row, "multitask", "dedicated")
    assert (pair["n"], pair["difference"]) == (6, pytest.approx(0.1))
    assert "Liver: undefined values were left out: 2 of dice." in found["notes"]


def test_what_is_undefined_everywhere_is_null_and_no_part_of_the_family(
    tmp_path: Path, write_run: Callable[..., Path]
) -> None:
    values = {"Liver": scores(np.full(8, np.nan)), "Heart": scores(np.arange(8) / 10, "q")}
    for arm, shift in (("dedicated", 0.0), ("multitask", 0.05)):
        moved = {task: {case: value + shift for case, value in found.items()} for task, found in values.items()}
        for part in [moved] if arm == "multitask" else [{task: moved[task]} for task in moved]:
            write_run(arm, part)
    found = compared(tmp_path)
    nothing = pair_of(found["tasks"]["Liver"], "multitask", "dedicated")
    assert (nothing["n"], nothing["difference"], nothing["p"], nothing["p_holm"]) == (0, None, None, None)
    assert nothing["verdict"] == "no evidence"
    pair = pair_of(found["tasks"]["Heart"], "multitask", "dedicated")
    assert pair["p_holm"] == pair["p"] == 2.0**-7
    assert found["mean"]["arms"]["dedicated"]["dice"]["mean"] is None
    mean = pair_of(found["mean"], "multitask", "dedicated")
    assert (mean["n"], mean["p"], mean["verdict"]) == (8, None, "no evidence")
    assert not any("can be found by itself" in note for note in found["notes"])


def write_family(write_run: Callable[..., Path], shifts: Mapping[str, float], n: int = 11) -> None:
    """Dedicated, transfer and multi-task training on as many tasks as there are shifts of the last."""
    rng = np.random.default_rng(0)
    multitask = {}
    for task, shift in shifts.items():
        values = rng.uniform(0.4, 0.6, n)
        write_run("dedicated", {task: scores(values, task)})
        write_run("transfer", {task: scores(values + rng.normal(0, 0.02, n), task)})
        multitask[task] = scores(values + shift + rng.normal(0, 0.02, n), task)
    write_run("multitask", multitask)


def test_verdicts_follow_from_the_adjusted_p_values_of_all_tasks_and_pairs(
    tmp_path: Path, write_run: Callable[..., Path]
) -> None:
    write_family(write_run, {"Liver": 0.2, "Heart": -0.2, "Lung": 0.0})
    found = compared(tmp_path)
    rows = found["tasks"]
    for metric in METRICS:
        family = [pair for row in rows.values() for pair in row["pairs"] if pair["metric"] == metric]
        assert len(family) == 9
        highest = 0.0
        for rank, pair in enumerate(sorted(family, key=lambda pair: pair["p"])):
            highest = max(highest, min(1.0, (9 - rank) * pair["p"]))
            assert pair["p_holm"] == pytest.approx(highest)
    verdicts = {task: pair_of(row, "multitask", "dedicated")["verdict"] for task, row in rows.items()}
    assert verdicts == {"Liver": "better", "Heart": "worse", "Lung": "no evidence"}


def test_too_few_patients_for_the_family_are_said_to_be_too_few(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    write_family(write_run, {"Liver": 0.2, "Heart": 0.2}, n=6)
    found = compared(tmp_path)
    pair = pair_of(found["tasks"]["Liver"], "multitask", "dedicated")
    # 2^-5 for one comparison would do; of six it does not.
    assert (pair["p"], pair["verdict"]) == (2.0**-5, "no evidence: n too small")
    assert any("Among 6 comparisons a metric" in note and "from 8 patients" in note for note in found["notes"])
    # The mean over tasks has 12 patients and a family of its own: three pairs.
    mean = pair_of(found["mean"], "multitask", "dedicated")
    assert (mean["n"], mean["p_holm"], mean["verdict"]) == (12, 3 * 2.0**-11, "better")


def test_a_refused_pair_has_a_reason_and_no_numbers(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    write_run("multitask", {"Liver": scores(np.full(6, 0.8)), "Heart": scores(np.full(6, 0.8), "q")})
    write_run("dedicated", {"Liver": scores(np.full(6, 0.7))}, budget={"steps": 300})
    found = compared(tmp_path)
    assert [(entry["task"], entry["a"], entry["b"]) for entry in found["refused"]] == [
        ("Liver", "multitask", "dedicated"),
        ("Heart", "multitask", "dedicated"),
    ]
    assert "300 optimizer steps" in found["refused"][0]["reason"]
    assert found["refused"][1]["reason"] == "there is no finished run of dedicated"
    assert found["tasks"]["Liver"]["pairs"] == found["tasks"]["Heart"]["pairs"] == found["mean"]["pairs"] == []
    assert set(found["tasks"]["Liver"]["arms"]) == {"dedicated", "multitask"}
    assert found["budget"] is None


def test_an_arm_that_lacks_a_task_has_no_mean_over_tasks(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    write_run("multitask", {"Liver": scores(np.full(6, 0.8)), "Heart": scores(np.full(6, 0.8), "q")})
    write_run("dedicated", {"Liver": scores(np.full(6, 0.7))})
    found = compared(tmp_path)
    assert set(found["mean"]["arms"]) == {"multitask"}
    assert pair_of(found["tasks"]["Liver"], "multitask", "dedicated")["n"] == 6
    assert found["missing"] == ["dedicated has no finished run on Heart, so that it has no mean over tasks."]


def test_runs_without_a_partner_are_missing_by_name(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    for seed in (0, 1):
        write_run("dedicated", {"Liver": scores(np.full(6, 0.7))}, seed=seed)
    write_run("multitask", {"Liver": scores(np.full(6, 0.8))}, seed=1)
    assert compared(tmp_path)["missing"] == [
        "multitask and dedicated on Liver: without a partner and left out: seed 0 of dedicated.",
        "dedicated on Liver: its means leave out seed 0, which not all arms have.",
    ]


def test_means_are_over_the_seeds_and_folds_that_all_arms_have(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    """An arm with a lucky seed more would stand higher, while the paired difference says that nothing differs."""
    for seed, value in ((0, 0.9), (1, 0.5)):
        write_run("dedicated", {"Liver": scores(np.full(6, value))}, seed=seed)
    write_run("multitask", {"Liver": scores(np.full(6, 0.5))}, seed=1)
    row = compared(tmp_path)["tasks"]["Liver"]
    means = {arm: metrics["dice"]["mean"] for arm, metrics in row["arms"].items()}
    assert means == {"dedicated": pytest.approx(0.5), "multitask": pytest.approx(0.5)}
    assert pair_of(row, "multitask", "dedicated")["difference"] == pytest.approx(0)


def test_arms_with_no_seed_in_common_keep_their_means_and_it_is_said(
    tmp_path: Path, write_run: Callable[..., Path]
) -> None:
    write_run("dedicated", {"Liver": scores(np.full(6, 0.9))}, seed=0)
    write_run("multitask", {"Liver": scores(np.full(6, 0.5))}, seed=1)
    found = compared(tmp_path)
    means = {arm: metrics["dice"]["mean"] for arm, metrics in found["tasks"]["Liver"]["arms"].items()}
    assert means == {"dedicated": pytest.approx(0.9), "multitask": pytest.approx(0.5)}
    assert found["missing"] == [
        "Liver: no seed and fold is common to all arms: their means are over different seeds or folds."
    ]


def test_training_set_sizes_are_compared_apart(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    for cases, gain in ((2, 0.3), (4, 0.2), (None, 0.1)):
        write_run("dedicated", {"Liver": scores(np.arange(9) / 20)}, cases=cases)
        write_run("multitask", {"Liver": scores(np.arange(9) / 20 + gain)}, cases=cases)
    write_run("transfer", {"Liver": scores(np.arange(9) / 20)}, cases=2, budget={"steps": 1})
    found = compared(tmp_path)
    gains = {size: pair_of(block["tasks"]["Liver"], "multitask", "dedicated") for size, block in found["sizes"].items()}
    assert {size: pair["difference"] for size, pair in gains.items()} == {
        "2": pytest.approx(0.3),
        "4": pytest.approx(0.2),
    }
    assert pair_of(found["tasks"]["Liver"], "multitask", "dedicated")["difference"] == pytest.approx(0.1)
    assert all(pair["p_holm"] == 2.0**-8 for pair in gains.values())  # a family each
    assert "transfer" not in found["tasks"]["Liver"]["arms"]
    assert {entry["reason"].partition(":")[0] for entry in found["refused"]} == {"With 2 training cases a task at most"}


def test_an_experiment_of_small_sizes_alone_has_no_rows_for_all_cases(
    tmp_path: Path, write_run: Callable[..., Path]
) -> None:
    write_run("dedicated", {"Liver": {"a": 0.5}}, cases=2)
    found = compared(tmp_path)
    assert (found["tasks"], found["mean"]) == ({}, {"arms": {}, "pairs": []})
    assert list(found["sizes"]["2"]["tasks"]) == ["Liver"]
    write_compare(tmp_path)
    assert "0.500" in printed(found)


def test_the_mean_over_tasks_is_not_judged_by_the_test_alone(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    """Opposite effects cancel in the mean of tasks, while most patients are on one side."""
    rng = np.random.default_rng(0)
    multitask = {}
    for task, n, effect in (("Liver", 5, 0.085), ("Heart", 20, -0.1)):
        values = rng.uniform(0.4, 0.6, n)
        write_run("dedicated", {task: scores(values, task)})
        multitask[task] = scores(values + effect + rng.normal(0, 0.02, n), task)
    write_run("multitask", multitask)
    pair = pair_of(compared(tmp_path)["mean"], "multitask", "dedicated")
    assert pair["p_holm"] < 0.05
    assert pair["difference"] * pair["rank_biserial"] > 0
    assert pair["low"] < 0 < pair["high"]
    assert pair["verdict"] == "no evidence"


def test_a_task_with_one_patient_leaves_the_mean_over_tasks_without_interval_and_verdict(
    tmp_path: Path, write_run: Callable[..., Path]
) -> None:
    write_run("multitask", {"Liver": scores(np.arange(12) / 20 + 0.2), "Heart": {"q": 0.7}})
    write_run("dedicated", {"Liver": scores(np.arange(12) / 20)})
    write_run("dedicated", {"Heart": {"q": 0.5}})
    found = compared(tmp_path)
    pair = pair_of(found["mean"], "multitask", "dedicated")
    assert (pair["n"], pair["low"], pair["high"], pair["p_holm"]) == (13, None, None, 2.0**-12)
    assert pair["verdict"] == "no evidence: n too small"
    assert sum("the mean over tasks has no interval" in note for note in found["notes"]) == 1


@pytest.mark.parametrize(("n", "noted"), [(1, False), (2, True), (4, True), (5, False)])
def test_intervals_of_few_patients_are_said_to_be_too_narrow(
    tmp_path: Path, write_run: Callable[..., Path], n: int, noted: bool
) -> None:
    for cases in (2, None):
        for arm in ("dedicated", "multitask"):
            write_run(arm, {"Liver": scores(np.arange(n) / 10)}, cases=cases)
    notes = [note for note in compared(tmp_path)["notes"] if note.startswith("Intervals of 2, 3 or 4 patients")]
    assert notes == noted * [
        "Intervals of 2, 3 or 4 patients cover the mean in about 50, 75 and 88 % of samples, not in 95 %: "
        "read them as the spread of the cases."
    ]


def test_one_seed_is_said_to_be_one(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    write_run("dedicated", {"Liver": {"a": 0.5}})
    assert any(note.startswith("One seed") for note in compared(tmp_path)["notes"])
    write_run("dedicated", {"Liver": {"a": 0.5}}, seed=1)
    assert not any(note.startswith("One seed") for note in compared(tmp_path)["notes"])


def test_the_newest_run_of_a_cell_is_compared(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    for name, value, time in (("old", 0.1, 100), ("new", 0.9, 200)):
        run = write_run("dedicated", {"Liver": {"a": value}}, name=name)
        os.utime(run / "run.json", (time, time))
    found = compared(tmp_path)
    assert found["tasks"]["Liver"]["arms"]["dedicated"]["dice"]["mean"] == 0.9
    assert [run["name"] for run in found["runs"]] == ["new"]
    assert any("old" in note for note in found["notes"])


def printed(comparison: Mapping[str, Any]) -> str:
    console = Console(file=StringIO(), width=160)
    print_comparison(console, comparison)
    return console.file.getvalue()


def test_the_terminal_shows_dice_verdicts_and_what_was_left_out(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    write_family(write_run, {"Liver": 0.2, "Heart": -0.2, "Lung": 0.0})
    write_run("dedicated", {"Spine": {"[x]": 0.5}}, root="phantom:")
    found = compared(tmp_path)
    sentences = verdict_sentences(found)
    assert sentences[1] == (
        "multitask against dedicated: Dice better (Liver), no evidence (Lung), worse (Heart); "
        "no evidence in any other metric."
    )
    text = printed(found)
    assert "Dice with 95% intervals" in text
    caption = "Budget: 600 optimizer steps of 4 patches a model, pre-training included. Digital phantoms, not patients"
    assert caption in " ".join(text.split())  # it is broken at the width of the table
    assert f"{found['tasks']['Liver']['arms']['multitask']['dice']['mean']:.3f} [" in text
    for sentence in (*sentences, *found["missing"], *found["notes"]):
        assert sentence in text
    assert "transfer and dedicated are not compared on Spine: there is no finished run of transfer." in text


def test_a_verdict_on_all_tasks_is_said_once_and_with_that_on_their_mean(
    tmp_path: Path, write_run: Callable[..., Path]
) -> None:
    write_family(write_run, {"Liver": 0.2, "Heart": 0.2})
    assert "multitask against dedicated: Dice better (all tasks), better (mean over tasks); " in printed(
        compared(tmp_path)
    )


def test_evidence_in_other_metrics_is_told(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    for arm, value in (("dedicated", 3.0), ("multitask", 2.0)):
        write_run(arm, {"Liver": {f"p{i}": {"hd95_mm": value + i, "ece_band": 1 / value} for i in range(9)}})
    (sentence,) = verdict_sentences(compared(tmp_path))
    assert sentence == (
        "multitask against dedicated: Dice no evidence (Liver); hd95_mm better (Liver); ece_band worse (Liver)."
    )


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_comparison_is_written_for_programs_spreadsheets_and_readers(
    tmp_path: Path, write_run: Callable[..., Path]
) -> None:
    generator = np.random.default_rng(0)
    values = scores(generator.uniform(0.5, 0.9, 7))
    for arm in ("dedicated", "multitask"):
        p = torch.from_numpy(generator.uniform(size=100))
        table = bin_volume(p, p > 0.4).to_dict()
        write_run(arm, {"Liver": values}, bins={"Liver": {case: {"band": table} for case in values}})
        write_run(arm, {"Liver": values}, cases=2)
    comparison, page = write_compare(tmp_path, level=0.1)
    out = tmp_path / "compare"
    assert page == out / "compare.html"
    assert "Liver" in page.read_text()
    assert json.loads((out / "compare.json").read_text()) == comparison
    assert comparison["level"] == 0.1
    assert (out / "figures" / "reliability-band.png").is_file()
    arms, pairs = rows_of(out / "compare.csv"), rows_of(out / "pairs.csv")
    assert len(arms) == 2 * 2 * 2 * len(METRICS)  # sizes, rows (Liver and mean), arms
    assert list(arms[0]) == ["cases", "task", "arm", "metric", "mean", "low", "high", "n", "undefined"]
    assert {row["cases"] for row in arms} == {"2", "all"}
    (row,) = [row for row in arms if list(row.values())[:4] == ["all", "Liver", "multitask", "dice"]]
    assert float(row["mean"]) == comparison["tasks"]["Liver"]["arms"]["multitask"]["dice"]["mean"]
    assert len(pairs) == 2 * 2 * len(METRICS)
    assert set(pairs[0]) == {"cases", "task"} | PAIR_KEYS
    assert {row["cohen_dz"] for row in pairs} == {""}
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    write_compare(tmp_path, level=0.1)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_task_named_mean_has_rows_of_its_own_beside_the_mean_over_tasks(
    tmp_path: Path, write_run: Callable[..., Path]
) -> None:
    values = {"mean": {"a": 0.2, "b": 0.2}, "Liver": {"c": 0.6, "d": 0.6}}
    write_run("multitask", values)
    for task in values:
        write_run("dedicated", {task: values[task]})
    write_compare(tmp_path)
    arms, pairs = (rows_of(tmp_path / "compare" / name) for name in ("compare.csv", "pairs.csv"))
    found = [(row["task"], float(row["mean"])) for row in arms if (row["arm"], row["metric"]) == ("multitask", "dice")]
    assert found == [("mean", pytest.approx(0.2)), ("Liver", pytest.approx(0.6)), ("mean", pytest.approx(0.4))]
    assert [row["task"] for row in pairs if row["metric"] == "dice"] == ["mean", "Liver", "mean"]


def test_reliability_is_shown_of_the_models_that_had_all_training_cases(
    tmp_path: Path, write_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = bin_volume(torch.tensor([0.1, 0.9]), torch.tensor([0, 1])).to_dict()
    for cases in (2, None):
        write_run("dedicated", {"Liver": {"a": 0.5}}, cases=cases, bins={"Liver": {"a": {"band": table}}})
    given = []
    monkeypatch.setattr("medmtl.experiment.analysis.compare.write_pages", lambda *arguments: given.append(arguments))
    comparison, _ = write_compare(tmp_path)
    ((shown, tables, folder),) = given
    assert (shown, folder) == (comparison, tmp_path / "compare")
    assert tables["band"]["dedicated"]["Liver"].voxels == 2


def test_a_folder_without_a_finished_run_is_not_written_to(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no finished run"):
        write_compare(tmp_path)
    assert list(tmp_path.iterdir()) == []
