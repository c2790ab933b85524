"""The card of a model says what its test measured, and whether that was on patients."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from case_sample import report_of
from exported_sample import source

from medmtl.data.facts import DataFacts
from medmtl.data.task import Task
from medmtl.errors import RunError
from medmtl.export.card import card
from medmtl.export.facts import RunFacts, _report
from medmtl.export.options import Options
from medmtl.export.record import Record, TaskRecord
from medmtl.export.write import write_network, write_state
from medmtl.runs.folder import RunFolder

OPTIONS = Options("run", None, "safetensors", Path("folder"))


@pytest.fixture
def record(tmp_path: Path) -> Record:
    given = source()
    return write_state(tmp_path, "safetensors", given, write_network(tmp_path, "safetensors", given))


def written(record: Record, report: dict) -> str:
    data = {name: DataFacts("CT", "organ", "CC0", "a paper", {"test": 1}, {"test": 1}) for name in record.tasks}
    return card(record, RunFacts(data, {"test": 1}, {}, report), OPTIONS, "folder")


@pytest.mark.parametrize(("patients", "said"), [(1, "no interval |"), (2, "(too few patients)"), (12, "")])
def test_the_interval_of_dice_is_that_of_the_report(record: Record, make_case, patients: int, said: str) -> None:
    cases = [
        make_case(f"c{number}", "Organ", dice=0.5 + 0.03 * number, patient=f"p{number}") for number in range(patients)
    ]
    report = json.loads(json.dumps(report_of(cases)))
    (row,) = [line for line in written(record, report).splitlines() if line.startswith(f"| Organ | {patients} |")]
    ends = report["tasks"]["Organ"]["accuracy_intervals"]["dice"]
    if patients > 1:
        assert f"{ends['low']:.3f} to {ends['high']:.3f}" in row
    assert said in row
    assert ("too few" in row) == (patients == 2)


@pytest.mark.parametrize(
    "report",
    [
        {"ood": {"verdict": {"threshold": None}}},
        {"tasks": 3, "ood": {"verdict": {"threshold": None}}},
        {"tasks": {"Organ": None}},
        {"tasks": {"Organ": {"dice": {"mean": "high"}}}},
    ],
)
def test_a_damaged_report_ends_in_one_line(record: Record, report: dict) -> None:
    with pytest.raises(RunError, match=r"report\.json of run classes lacks .*: run `medmtl test` again"):
        written(record, report)


@pytest.mark.parametrize("schema", [1, 3, None])
def test_a_report_of_another_version_is_not_quoted(
    tmp_path: Path, schema: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    run = RunFolder(tmp_path / "run")
    run.report.mkdir(parents=True)
    content = {"schema": schema, "ood": {"verdict": {"threshold": None}}}
    (run.report / "report.json").write_text(json.dumps(content))
    untold = SimpleNamespace(spectral=SimpleNamespace(ood_detector=None))
    assert _report(run, untold) == {}
    assert "is of another version of medmtl: run `medmtl test` again" in caplog.text
    (run.report / "report.json").write_text(json.dumps({**content, "schema": 2}))
    assert _report(run, untold) == {**content, "schema": 2}


def test_a_network_that_learnt_from_phantoms_says_so(record: Record) -> None:
    said = "Trained on digital phantoms, not patients."
    assert said not in written(record, {})
    phantom = Task(root="phantom:LiverCT", modality="CT", spacing=(2, 2, 2), organ=[3]).known
    own = Task(root="/home/me/Liver", modality="CT", spacing=(2, 2, 2), organ=[3]).known
    assert (phantom.root, own.root) == ("phantom:LiverCT", "")  # where data of patients lie is nobody's business
    assert [TaskRecord.of(each).known for each in (phantom, own)] == [phantom, own]
    assert said in written(replace(record, tasks={**record.tasks, "Organ": TaskRecord.of(phantom)}), {})
