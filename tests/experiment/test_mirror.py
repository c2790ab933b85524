"""The comparison of an experiment is in W&B as it is on disk, read back from an offline run."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import wandb
import yaml
from comparison_sample import make_comparison
from wandb_record import read_runs

from medmtl.errors import ConfigError, RunError
from medmtl.experiment import command
from medmtl.experiment.analysis.compare import arm_rows, pair_rows
from medmtl.experiment.mirror import log_comparison
from medmtl.experiment.run.runner import Outcome


@pytest.fixture
def experiment(tmp_path: Path, blank: bytes) -> Path:
    folder = tmp_path / "study"
    (folder / "configs").mkdir(parents=True)
    wandb = {"mode": "offline", "project": "organs", "group": "study", "job_type": "dedicated", "tags": ["seed0"]}
    (folder / "configs" / "dedicated.yaml").write_text(yaml.safe_dump({"data": {}, "wandb": wandb}))
    (folder / "compare" / "figures").mkdir(parents=True)
    (folder / "compare" / "figures" / "forest-dice.png").write_bytes(blank)
    return folder


def test_differences_with_intervals_and_figures_are_those_of_the_comparison(
    experiment: Path, blank: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    comparison = make_comparison()
    log_comparison(experiment, comparison)
    (run,) = read_runs(experiment / "compare").values()
    assert (run.group, run.job_type, run.id) == ("study", "comparison", "study-comparison")
    for name, rows in (("pairs", pair_rows(comparison)), ("arms", arm_rows(comparison))):
        (table,) = run.tables(f"compare/{name}")
        assert [dict(zip(table["columns"], row, strict=True)) for row in table["data"]] == rows
    assert {"low", "high", "difference", "verdict"} <= set(run.tables("compare/pairs")[0]["columns"])
    (figure,) = run.values("compare/forest-dice")
    assert (run.folder / "files" / figure["path"]).read_bytes() == blank


@pytest.mark.parametrize("mode", ["disabled", None])
def test_an_experiment_without_wandb_logs_none(experiment: Path, mode: str | None) -> None:
    (path,) = (experiment / "configs").glob("*.yaml")
    path.write_text(yaml.safe_dump({"wandb": {"mode": mode}}))
    if mode is None:
        path.unlink()
    log_comparison(experiment, make_comparison())
    assert not (experiment / "compare" / "wandb").exists()


@pytest.mark.parametrize(
    "text", ["", "[]", "3", "{wandb: 3}", "{wandb: [mode]}", "{wandb: {mode: 3}}", "{wandb: {mode: off}}", "wandb: {"]
)
def test_a_damaged_configuration_ends_in_one_line(experiment: Path, text: str) -> None:
    (path,) = (experiment / "configs").glob("*.yaml")
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"dedicated\.yaml"):
        log_comparison(experiment, make_comparison())


def test_a_run_is_finished_though_logging_fails(experiment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    finished = []

    class Refusing:
        def log(self, values: object) -> None:
            raise wandb.errors.CommError("no room")

        def finish(self) -> None:
            finished.append(self)

    monkeypatch.setattr(wandb, "init", lambda **_: Refusing())
    with pytest.raises(ConfigError, match=r"W&B does not take the comparison \(no room\)"):
        log_comparison(experiment, make_comparison())
    assert len(finished) == 1


def test_failed_trainings_are_named_though_the_comparison_fails_too(
    experiment: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(folder: Path) -> None:
        raise ConfigError("W&B does not take the comparison", fix="set wandb.mode to offline")

    monkeypatch.setattr(command, "compare", refuse)
    jobs = [SimpleNamespace(cell="one", finished=True), SimpleNamespace(cell="other", finished=False)]
    with pytest.raises(RunError, match=r"1 of 2 training runs did not finish \(other: no memory\)"):
        command._conclude(experiment, jobs, Outcome(("one",), {"other": "no memory"}, {}))
    assert "W&B does not take the comparison" in caplog.text
    with pytest.raises(ConfigError, match="W&B does not take"):
        command._conclude(experiment, jobs, Outcome(("one",), {}, {}))
