"""What is read of an experiment's folder, and what is left out by name."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from medmtl.calibration.bins import bin_volume
from medmtl.calibration.metrics import summarise
from medmtl.errors import RunError
from medmtl.experiment.records import pooled_tables, read_records
from medmtl.report.results import CaseResult, write_cases


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
    verdict = {"scores": {}, "p_value": None, "rejected": None, "nearest_task": None, "recipe": None}
    result = CaseResult(case="a", source="Liver", expected="in", patient=None, **scored, **verdict)
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
    table.write_text("source,case,patient,expected,dice\nLiver,a,a,in,0.9\n")
    (run,) = read_records(tmp_path).runs
    values = run.cases["Liver"][0].values
    assert values.pop("dice") == 0.9
    assert set(values) >= {"hd95_mm", "asd_mm", "ece_band"}
    assert all(map(math.isnan, values.values()))


def test_a_run_about_one_task_counts_for_that_task_alone(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    values = {"Liver": {"a": 0.9}, "Heart": {"b": 0.8}}
    write_run("multitask_finetune", values)
    write_run("multitask", values)
    assert [list(run.cases) for run in read_records(tmp_path).runs] == [["Liver", "Heart"], ["Liver"]]


@pytest.mark.parametrize(
    ("file", "content", "named"),
    [
        ("run.json", "{", "JSONDecodeError"),
        ("splits.json", None, "splits.json"),
        ("splits.json", "{}", "splits.json lacks task Liver"),
        ("config.yaml", "data: [", "ParserError"),
        ("config.yaml", "data: {tasks: {Heart: {}}}", "config.yaml lacks task Liver"),
        ("report/cases.csv", None, "cases.csv"),
        ("report/cases.csv", "source,case,patient,expected,dice\n", "no labelled test case of Liver"),
        ("report/cases.csv", "source,case,expected,dice\nLiver,a,in,1\nLiver,a,in,1\n", "case a of Liver twice"),
        ("report/cases.csv", "source,case,expected,dice\nLiver,a,in,good\n", "good"),
        ("report/bins.json", '{"Liver": {"a": {"band": {}}}}', "count"),
    ],
)
def test_a_run_that_cannot_be_read_is_named_and_does_not_stop_the_rest(
    tmp_path: Path, write_run: Callable[..., Path], file: str, content: str | None, named: str
) -> None:
    write_run("multitask", {"Liver": {"a": 0.9}})
    broken = write_run("dedicated", {"Liver": {"a": 0.9}})
    if content is None:
        (broken / file).unlink()
    else:
        (broken / file).write_text(content)
    records = read_records(tmp_path)
    assert [run.cell.arm for run in records.runs] == ["multitask"]
    (sentence,) = records.missing
    assert broken.name in sentence
    assert named in sentence


def test_an_arm_that_nobody_knows_is_named(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    write_run("multitask", {"Liver": {"a": 0.9}})
    write_run("distilled", {"Liver": {"a": 0.9}})
    (sentence,) = read_records(tmp_path).missing
    assert "distilled" in sentence
    assert "multitask_finetune" in sentence


def test_runs_that_are_not_finished_are_named_and_pre_trainings_are_passed_over(
    tmp_path: Path, write_run: Callable[..., Path]
) -> None:
    write_run("dedicated", {"Liver": {"a": 0.9}}, name="done")
    write_run("dedicated", {"Heart": {"a": 0.9}}, name="half", finished=False)
    pretraining = write_run("transfer", {"Liver": {"a": 0.9}}, name="pretraining") / "run.json"
    record = json.loads(pretraining.read_text())
    record["experiment"]["cell"] = None
    pretraining.write_text(json.dumps(record))
    (tmp_path / "runs" / "fresh").mkdir()
    records = read_records(tmp_path)
    assert [run.name for run in records.runs] == ["done"]
    assert records.missing == ("Not finished: half.",)


def plan(folder: Path, fingerprints: dict[str, str]) -> None:
    (folder / "jobs").mkdir(exist_ok=True)
    for name, fingerprint in fingerprints.items():
        (folder / "jobs" / f"{name}.json").write_text(json.dumps({"name": name, "fingerprint": fingerprint}))


def test_runs_that_are_planned_and_never_began_are_named(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    write_run("dedicated", {"Liver": {"a": 0.9}}, name="done")
    write_run("dedicated", {"Liver": {"a": 0.9}}, name="of-an-earlier-plan", finished=False)
    plan(tmp_path, {"dedicated-Liver": "done"} | {f"transfer-{number:02}": str(number) for number in range(12)})
    (sentence,) = read_records(tmp_path).missing
    assert sentence.startswith("Not finished: transfer-00, transfer-01,")
    assert sentence.endswith("transfer-07 and 4 more.")


@pytest.mark.parametrize("content", ["", "[]", "{}"])
def test_a_damaged_plan_says_which_file(tmp_path: Path, write_run: Callable[..., Path], content: str) -> None:
    write_run("dedicated", {"Liver": {"a": 0.9}})
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "x.json").write_text(content)
    with pytest.raises(RunError, match=r"jobs/x\.json.*medmtl experiment"):
        read_records(tmp_path)


def test_of_several_runs_of_one_cell_the_newest_counts_and_the_others_are_named(
    tmp_path: Path, write_run: Callable[..., Path]
) -> None:
    for name, time in (("b", 100), ("a", 300), ("c", 200)):
        os.utime(write_run("dedicated", {"Liver": {"x": 0.9}}, name=name) / "run.json", (time, time))
    os.utime(write_run("dedicated", {"Liver": {"x": 0.9}}, seed=1, name="d") / "run.json", (400, 400))
    records = read_records(tmp_path)
    assert [run.name for run in records.runs] == ["a", "d"]
    assert records.notes == ("Of several finished runs of one cell, a counts; left out: b, c.",)
    plan(tmp_path, {"dedicated-Liver": "c"})
    records = read_records(tmp_path)
    assert [run.name for run in records.runs] == ["c", "d"]
    assert records.notes == ("Of several finished runs of one cell, c counts; left out: a, b.",)


@pytest.mark.parametrize("prepare", ["nothing", "an unfinished run", "a broken run"])
def test_without_a_finished_run_the_error_says_what_to_do(
    tmp_path: Path, write_run: Callable[..., Path], prepare: str
) -> None:
    if prepare != "nothing":
        run = write_run("dedicated", {"Liver": {"x": 0.9}}, name="x", finished=prepare == "a broken run")
        (run / "config.yaml").unlink()
    with pytest.raises(RunError, match=r"no finished run.*medmtl experiment") as caught:
        read_records(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert ("Run x cannot be read" in str(caught.value)) == (prepare == "a broken run")


def test_phantoms_are_said_to_be_phantoms(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    write_run("dedicated", {"Liver": {"x": 0.9}})
    assert read_records(tmp_path).data_note == ""
    write_run("dedicated", {"Heart": {"x": 0.9}}, root="phantom:")
    assert read_records(tmp_path).data_note == "Digital phantoms, not patients"


def test_reliability_bins_are_pooled_over_cases_and_seeds_of_the_tested_task(
    tmp_path: Path, write_run: Callable[..., Path]
) -> None:
    rng = torch.Generator().manual_seed(0)
    tables = {}
    for seed in (0, 1):
        for case in ("a", "b", "unlabelled"):
            p = torch.rand(50, generator=rng, dtype=torch.float64)
            tables[seed, case] = bin_volume(p, torch.rand(50, generator=rng, dtype=torch.float64) < p)
    for seed in (0, 1):
        bins = {case: {"band": tables[seed, case].to_dict()} for case in ("a", "b", "unlabelled")}
        values = {"Liver": {"a": 0.9, "b": 0.8, "unlabelled": {"dice": ""}}}
        write_run("dedicated", values, seed=seed, bins={"Liver": bins, "Heart": bins})
    write_run("transfer", {"Liver": {"a": 0.9}}, bins={"Liver": {"a": {"band": tables[0, "a"].to_dict()}}})
    write_run("multitask", {"Liver": {"a": 0.9}})
    pooled = pooled_tables(read_records(tmp_path).runs)
    assert {region: {arm: list(found) for arm, found in arms.items()} for region, arms in pooled.items()} == {
        "band": {"dedicated": ["Liver"], "transfer": ["Liver"]}
    }
    expected = sum((tables[seed, case].count for seed in (0, 1) for case in ("a", "b")), torch.zeros(15).long())
    assert torch.equal(pooled["band"]["dedicated"]["Liver"].count, expected)
    assert pooled["band"]["dedicated"]["Liver"].voxels == 200
    assert pooled["band"]["transfer"]["Liver"].squared_error == tables[0, "a"].squared_error
