"""What is read of a finished run."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from medmtl.calibration.metrics.bins import bin_volume
from medmtl.calibration.metrics.definitions import summarise
from medmtl.experiment.analysis.compare import compare
from medmtl.experiment.analysis.records import read_records
from medmtl.results.case import CaseResult
from medmtl.results.compared import COMPARED
from medmtl.results.test import write_cases


def test_a_finished_run_is_read_with_its_cell_and_cases(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    values = {"Liver": {"a": {"dice": 0.9, "hd95_mm": 3.5}, "b": math.nan, "unlabelled": {"dice": ""}}}
    folder = write_run("dedicated", values, seed=2, fold=1, cases=4, patients={"a": "ann", "b": ""})
    (run,) = read_records(tmp_path).runs
    assert run.name == folder.name
    assert (run.cell.arm, run.cell.task, run.cell.seed, run.cell.fold, run.cell.cases) == (
        *("dedicated", "Liver", 2, 1, 4),
    )
    assert (run.steps, run.cell.budget.steps, run.fingerprint) == (600, 600, folder.name)
    assert [(case.case, case.patient) for case in run.cases["Liver"]] == [("a", "ann"), ("b", "b")]
    assert run.cases["Liver"][0].values["hd95_mm"] == 3.5
    assert math.isnan(run.cases["Liver"][1].values["dice"])
    assert run.splits["Liver"]["train"] == ["train_1", "train_2"]
    assert run.config["data"]["batch_size"] == 4


def test_the_report_of_a_test_holds_all_that_is_compared(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    table = bin_volume(torch.tensor([0.1, 0.4, 0.8]), torch.tensor([0, 1, 1]))
    scored = {"dice": 0.9, "hd95_mm": 2.0, "asd_mm": 0.5, "calibration": {"whole": table, "band": table}}
    verdict = {"scores": {}, "p_value": None, "rejected": None, "nearest_task": None, "preprocessing": None}
    result = CaseResult(case="a", dataset="Liver", expected="in", patient=None, **scored, **verdict)
    run = write_run("dedicated", {"Liver": {"a": 0.1}})
    write_cases(run / "report" / "cases.csv", [result])
    (case,) = read_records(tmp_path).runs[0].cases["Liver"]
    assert case.patient == "a"
    measured = summarise(table)
    assert case.values == {"dice": 0.9, "hd95_mm": 2.0, "asd_mm": 0.5} | {
        f"{metric}_band": measured[metric] for metric in ("ece", "ace", "brier", "nll")
    }


def test_a_metric_that_an_older_report_lacks_is_undefined(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    table = write_run("dedicated", {"Liver": {"a": 0.9}}) / "report" / "cases.csv"
    table.write_text("dataset,case,patient,expected,dice\nLiver,a,a,in,0.9\n")
    (run,) = read_records(tmp_path).runs
    values = run.cases["Liver"][0].values
    assert values.pop("dice") == 0.9
    assert set(values) >= {"hd95_mm", "asd_mm", "ece_band"}
    assert all(map(math.isnan, values.values()))


def test_a_run_of_an_earlier_version_is_read_with_one_warning_for_all(
    tmp_path: Path, write_run: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    for seed in (0, 1):
        run = write_run("dedicated", {"Liver": {"a": 0.9}}, seed=seed)
        table = run / "report" / "cases.csv"
        table.write_text(table.read_text().replace("dataset,", "source,", 1))
        config = yaml.safe_load((run / "config.yaml").read_text())
        config["data"]["foreign"] = {"Other": {"root": "/other"}}
        (run / "config.yaml").write_text(yaml.safe_dump(config))
    runs = read_records(tmp_path).runs
    assert [run.cases["Liver"][0].values["dice"] for run in runs] == [0.9, 0.9]
    assert all(run.config["data"]["ood"] == {"Other": {"root": "/other"}} for run in runs)
    (message,) = caplog.messages
    assert message.endswith("runs uses names of an earlier version: data.foreign is now data.ood")


def test_a_calibration_metric_of_ones_own_is_compared_where_all_runs_measured_it(
    tmp_path: Path, write_run: Callable[..., Path]
) -> None:
    about = {"label": "sharpness", "unit": "nats", "higher_is_better": True, "digits": 1}
    described = {"sharpness": about, "gap_of_mine": {**about, "higher_is_better": None}, "dice": {**about}}
    for arm in ("dedicated", "multitask"):
        values = {case: {"sharpness_band": number, "gap_of_mine_band": 1.0} for number, case in enumerate("abc")}
        run = write_run(arm, {"Liver": values})
        (run / "report" / "report.json").write_text(json.dumps({"schema": 2, "metrics": described}))
    found = compare(read_records(tmp_path))
    assert found["metrics"]["sharpness_band"] == {**about, "label": "sharpness in the band"}
    assert list(found["metrics"]) == [*COMPARED, "sharpness_band"]
    assert found["tasks"]["Liver"]["arms"]["dedicated"]["sharpness_band"]["mean"] == 1.0
    write_run("transfer", {"Liver": {"a": 0.9, "b": 0.9, "c": 0.9}})
    assert list(compare(read_records(tmp_path))["metrics"]) == list(COMPARED)


def test_a_run_about_one_task_counts_for_that_task_alone(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    values = {"Liver": {"a": 0.9}, "Heart": {"b": 0.8}}
    write_run("multitask_finetune", values)
    write_run("multitask", values)
    assert [list(run.cases) for run in read_records(tmp_path).runs] == [["Liver", "Heart"], ["Liver"]]
