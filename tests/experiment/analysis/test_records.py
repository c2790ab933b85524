"""Which runs of an experiment's folder are compared, and what is left out by name."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from medmtl.calibration.metrics.bins import bin_volume
from medmtl.errors import RunError
from medmtl.experiment.analysis.records import pooled_tables, read_records

BINS = bin_volume(torch.tensor([0.1, 0.9]), torch.tensor([0, 1]), bins=2).to_dict()


@pytest.mark.parametrize(
    ("file", "content", "named"),
    [
        ("run.json", "{", "Not finished"),
        ("splits.json", None, "splits.json"),
        ("splits.json", "{}", "splits.json lacks task Liver"),
        ("config.yaml", "data: [", "line 1, column 8"),
        ("config.yaml", "data: {tasks: {Heart: {}}}", "config.yaml lacks task Liver"),
        ("report/cases.csv", None, "cases.csv"),
        ("report/cases.csv", "dataset,case,patient,expected,dice\n", "no labelled test case of Liver"),
        ("report/cases.csv", "dataset,case,expected,dice\nLiver,a,in,1\nLiver,a,in,1\n", "case a of Liver twice"),
        ("report/cases.csv", "dataset,case,expected,dice\nLiver,a,in,good\n", "good"),
        ("report/bins.json", '{"Liver": {"a": {"band": {}}}}', "count"),
        ("report/bins.json", json.dumps({"Liver": {"a": {"band": {**BINS, "count": [10**400, 1]}}}}), "more voxels"),
        ("report/bins.json", json.dumps({"Liver": {"a": {"band": {**BINS, "count": [1]}}}}), "several lengths"),
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


def test_arms_are_called_and_ordered_as_the_plan_describes_them(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    for arm in ("distilled", "multitask", "dedicated", "another"):
        write_run(arm, {"Liver": {"a": 0.9}})
    without = read_records(tmp_path).arms
    assert {key: about["label"] for key, about in without.items()} == {
        **{"dedicated": "dedicated training", "multitask": "multi-task training"},
        **{"another": "another", "distilled": "distilled"},
    }
    described = {key: without[key] for key in ("distilled", "dedicated", "transfer") if key in without}
    described["distilled"] = {**without["distilled"], "label": "distillation"}
    (tmp_path / "arms.json").write_text(json.dumps(described))
    arms = read_records(tmp_path).arms
    assert list(arms) == ["distilled", "dedicated", "multitask", "another"]
    assert arms["distilled"]["label"] == "distillation"
    assert len({about["look"]["marker"] for about in arms.values()}) == 4
    (tmp_path / "arms.json").write_text("{}[")
    with pytest.raises(RunError, match=r"arms\.json describes no arms: start `medmtl experiment` again"):
        read_records(tmp_path)


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


BUDGET = {"notion": "steps", "steps": 600, "batch_size": 4, "validations": 5}


def plan(folder: Path, fingerprints: dict[str, str], **about: Any) -> None:
    """Plan runs of the dedicated arm on Liver, of seed 0, or what `about` says: name -> fingerprint."""
    cell = {"experiment": folder.name, "arm": "dedicated", "task": "Liver", "seed": 0, "fold": None, "cases": None}
    cell |= {"budget": BUDGET} | about
    (folder / "jobs").mkdir(exist_ok=True)
    for name, fingerprint in fingerprints.items():
        job = {"name": name, "fingerprint": fingerprint, "cell": cell}
        (folder / "jobs" / f"{name}.json").write_text(json.dumps(job))


def test_runs_that_are_planned_and_never_began_are_named(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    write_run("dedicated", {"Liver": {"a": 0.9}}, name="done")
    write_run("dedicated", {"Liver": {"a": 0.9}}, name="of-an-earlier-plan", finished=False)
    plan(tmp_path, {"dedicated-Liver": "done"})
    for number in range(12):
        plan(tmp_path, {f"transfer-{number:02}": str(number)}, arm="transfer", seed=number)
    (sentence,) = read_records(tmp_path).missing
    assert sentence.startswith("Not finished: transfer-00, transfer-01,")
    assert sentence.endswith("transfer-07 and 4 more.")


def test_a_run_of_an_earlier_plan_does_not_stand_in_for_the_planned_one(
    tmp_path: Path, write_run: Callable[..., Path]
) -> None:
    """Its settings or data were others: next to runs of the present plan it would be an arm of its own."""
    write_run("dedicated", {"Liver": {"a": 0.1}}, name="old")
    write_run("dedicated", {"Liver": {"a": 0.1}}, name="older")
    write_run("multitask", {"Liver": {"a": 0.9}}, name="present")
    plan(tmp_path, {"dedicated-Liver-seed0": "new"})
    plan(tmp_path, {"multitask-seed0": "present"}, arm="multitask", task=None)
    records = read_records(tmp_path)
    assert [run.name for run in records.runs] == ["present"]
    assert records.notes == ()
    assert records.missing == (
        "Not finished: dedicated-Liver-seed0.",
        "Run old was made under an earlier plan and is left out; dedicated-Liver-seed0 is planned instead and not "
        "finished.",
        "Run older was made under an earlier plan and is left out; dedicated-Liver-seed0 is planned instead and not "
        "finished.",
    )
    write_run("dedicated", {"Liver": {"a": 0.5}}, name="new")
    records = read_records(tmp_path)
    assert [run.name for run in records.runs] == ["new", "present"]
    assert records.missing == ()
    assert records.notes == ("Of several finished runs of one cell, new counts; left out: old, older.",)
    (tmp_path / "runs" / "new" / "config.yaml").unlink()
    sentences = read_records(tmp_path).missing
    assert "dedicated-Liver-seed0 is planned instead and cannot be read." in sentences[-1]


def test_a_run_of_a_cell_that_is_no_longer_planned_is_named_and_not_compared(
    tmp_path: Path, write_run: Callable[..., Path]
) -> None:
    write_run("dedicated", {"Liver": {"a": 0.1}}, name="planned")
    for about in ({"seed": 1}, {"fold": 0}, {"cases": 4}):
        write_run("dedicated", {"Liver": {"a": 0.1}}, **about)
    write_run("dedicated", {"Heart": {"a": 0.1}})
    write_run("transfer", {"Liver": {"a": 0.1}}, name="other")
    plan(tmp_path, {"dedicated-Liver-seed0": "planned"})
    records = read_records(tmp_path)
    assert [run.name for run in records.runs] == ["planned"]
    (note,) = records.notes
    assert note.startswith("Not compared, since the experiment no longer plans them: ")
    assert "other" in note
    write_run("multitask", {"Liver": {"a": 0.1}}, name="longer", budget={"steps": 900})
    (note,) = read_records(tmp_path).notes
    assert "and the budgets differ (900 optimizer steps of 4 patches a model, pre-training included): " in note


def test_runs_of_an_earlier_plan_alone_are_nothing_to_compare(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    write_run("dedicated", {"Liver": {"a": 0.1}}, name="old")
    plan(tmp_path, {"dedicated-Liver-seed0": "new"})
    with pytest.raises(RunError, match=r"no finished run to compare Run old was made under an earlier plan"):
        read_records(tmp_path)


def test_a_run_is_what_the_plan_takes_it_for(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    """A task with four training cases has the same training under a limit of four and under none."""
    write_run("dedicated", {"Liver": {"a": 0.1}}, cases=4, name="both")
    samples = BUDGET | {"notion": "samples"}
    plan(tmp_path, {"dedicated-Liver-4cases-seed0": "both"}, cases=4)
    plan(tmp_path, {"dedicated-Liver-seed0": "both"}, budget=samples)
    records = read_records(tmp_path)
    found = {run.cell.cases: (run.name, run.cell.budget.notion) for run in records.runs}
    assert found == {4: ("both", "steps"), None: ("both", "samples")}
    assert (records.missing, records.notes) == ((), ())


def test_other_versions_of_medmtl_or_torch_are_named(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    made_by = [("a", "1.0", "2.12.0"), ("b", "1.0", "2.13.0+cpu"), ("c", "1.0", "2.12.0"), ("d", None, None)]
    for seed, (name, medmtl, torch_version) in enumerate(made_by):
        path = write_run("dedicated", {"Liver": {"x": 0.9}}, seed=seed, name=name) / "run.json"
        versions = {"medmtl": medmtl, "torch": torch_version, "monai": name}
        path.write_text(json.dumps(json.loads(path.read_text()) | {"fit": {"versions": versions} if medmtl else {}}))
    assert read_records(tmp_path).notes == (
        "The runs were made by different versions of torch: 2.12.0 (a, c); 2.13.0+cpu (b).",
    )


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
    assert [run.name for run in records.runs] == ["c"]
    assert records.notes == (
        "Not compared, since the experiment no longer plans them: d.",
        "Of several finished runs of one cell, c counts; left out: a, b.",
    )


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
