"""A run folder of version 0.1 tests, calibrates, predicts and resumes, with one warning that names the new keys."""

import json
import shutil
from pathlib import Path

import pytest

from medmtl import load
from medmtl.calibration.scaling.parametric import Temperature
from medmtl.cli import main
from medmtl.runs.checkpoint import read_checkpoint

OLD = Path(__file__).parents[1] / "fixtures" / "old-0.1"
RENAMED = "data.foreign is now data.ood"
OLD_SCALING = "is of an earlier version, which fitted it near the organ alone: run `medmtl calibrate`"


@pytest.fixture
def run(phantoms: Path, workplace: Path) -> Path:
    """A copy of the run; its data are phantoms."""
    return shutil.copytree(OLD, workplace / "runs" / "old")


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if "names of an earlier version" in record.message]


def warned_of_scaling(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if "the scaling of" in record.message]


@pytest.mark.usefixtures("laid_out")
def test_it_tests(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    main(["test", "--run", str(run)])
    assert [RENAMED in message for message in warned(caplog)] == [True]
    assert "medmtl.ood.by_task.ByTask is now medmtl.ood.detectors.ByTask" in warned(caplog)[0]
    assert "scaling.region is gone" in warned(caplog)[0]
    assert [OLD_SCALING in message for message in warned_of_scaling(caplog)] == [True]
    report = json.loads((run / "report" / "report.json").read_text())
    assert set(report["tasks"]) == {"LiverCT", "KidneyT2"}
    assert report["scaling"]["region"] == "band"
    assert "fitted by an earlier version" in (run / "report" / "report.html").read_text()
    bank = read_checkpoint(run / "checkpoints" / "best.ckpt")["callbacks"]["SpectralCallback"]
    assert {"recipes", "familiar"} < bank.keys()  # a test changes no checkpoint


def test_it_calibrates(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    best = run / "checkpoints" / "best.ckpt"
    before = read_checkpoint(best)["callbacks"]["SpectralCallback"]
    main(["calibrate", "--run", str(run)])
    assert [RENAMED in message for message in warned(caplog)] == [True]
    after = read_checkpoint(best)["callbacks"]["SpectralCallback"]
    assert after["preprocessings"] == before["recipes"]
    assert [each[:2] for each in after["held_out"]] == [each[:2] for each in before["familiar"]]
    scores, old_scores = ([each[3] for each in after["held_out"]], [each[4] for each in before["familiar"]])
    assert scores == pytest.approx(old_scores)  # each as an image of its task
    caplog.clear()
    assert not warned_of_scaling(caplog)
    main(["test", "--run", str(run)])  # with the configuration that was written back
    assert not warned_of_scaling(caplog)
    assert "region" not in json.loads((run / "report" / "report.json").read_text())["scaling"]


def test_it_predicts(run: Path, phantoms: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = sorted((phantoms / "LiverCT" / "imagesTr").glob("*.nii.gz"))[0]
    model = load(run, device="cpu")
    prediction = model.predict(image)
    assert set(prediction.scores) == {"by_task", "spectral", "entropy", "max_softmax"}
    assert prediction.p_value is not None
    assert [RENAMED in message for message in warned(caplog)] == [True]
    assert [OLD_SCALING in message for message in warned_of_scaling(caplog)] == [True]
    assert model.scalings is not None
    kept = read_checkpoint(run / "checkpoints" / "best.ckpt")["callbacks"]["ScalingCallback"]["tasks"]
    for task, fitted in kept.items():
        assert model.scalings.choose(task) == Temperature(fitted["scaling"]["temperature"])  # applied as it was


def test_it_resumes(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    main(["fit", "--run", str(run), "--resume", "--trainer.max_steps=9"])
    assert [RENAMED in message for message in warned(caplog)] == [True]
    assert read_checkpoint(run / "checkpoints" / "last.ckpt")["global_step"] == 9
