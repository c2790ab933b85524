"""The comparison of an experiment is in W&B as it is on disk, read back from an offline run."""

from pathlib import Path

import pytest
import yaml
from comparison_sample import make_comparison
from wandb_record import read_runs

from medmtl.experiment.analysis.compare import arm_rows, pair_rows
from medmtl.experiment.mirror import log_comparison


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
