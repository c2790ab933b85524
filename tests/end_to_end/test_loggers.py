"""TensorBoard and MLflow get what W&B gets, by one option that names the logger."""

import csv
import shutil
from pathlib import Path

import pytest

from medmtl.cli import main
from medmtl.runs.places import LIBRARIES


@pytest.fixture
def tested(trained: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A run that is tested again with the logger that the test names, if that is installed."""
    pytest.importorskip(LIBRARIES[request.param])
    run = Path(shutil.copytree(trained, tmp_path / "runs" / "tiny"))
    main(["test", "--run", str(run), "--trainer.logger", request.param])
    return run


def logged(run: Path) -> dict[str, float]:
    """The figures of the last test in `metrics.csv`."""
    with (run / "metrics.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if any(row[key] for key in row if key.startswith("test/"))]
    last = {key: float(value) for row in rows for key, value in row.items() if value and key.startswith("test/")}
    assert {"test/mean/dice", "test/ood/verdict/auroc", "test/mean/ace_band_scaled"} <= set(last)
    return last


def pictures(run: Path) -> set[str]:
    return {f"test/{path.stem}" for path in (run / "report" / "figures").glob("*.png")}


@pytest.mark.parametrize("tested", ["TensorBoardLogger"], indirect=True)
def test_tensorboard_has_the_figures_pictures_and_cases(tested: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(tested / "tensorboard" / "test"))
    events.Reload()
    scalars = {key: events.Scalars(key)[-1].value for key in events.Tags()["scalars"] if key.startswith("test/")}
    assert scalars == pytest.approx(logged(tested), nan_ok=True)
    assert pictures(tested) | {"test/cases/0", "test/cases/1"} == set(events.Tags()["images"])
    assert "test/cases/text_summary" in events.Tags()["tensors"]


@pytest.mark.parametrize("tested", ["MLFlowLogger"], indirect=True)
def test_mlflow_has_the_figures_pictures_and_cases(tested: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    client = mlflow.MlflowClient(tracking_uri=str(tested / "mlruns"))
    (experiment,) = [each for each in client.search_experiments() if each.name == "tiny"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "test"
    figures = {key: value for key, value in run.data.metrics.items() if key.startswith("test/")}
    assert figures == pytest.approx(logged(tested), nan_ok=True)
    files = {each.path for each in client.list_artifacts(run.info.run_id, "test")}
    assert {f"{name}.png" for name in pictures(tested)} | {"test/cases.csv"} <= files
