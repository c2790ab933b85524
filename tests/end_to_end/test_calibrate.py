"""Scaling through `fit`, `test` and `calibrate`: kept in checkpoints, reported beside the network's own figures."""

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from medmtl.calibration.metrics.bins import bin_volume
from medmtl.calibration.metrics.definitions import METRICS
from medmtl.calibration.scaling.zones import ByZone, ZoneHistograms
from medmtl.cli import main

TASKS = ["LiverCT", "KidneyT2"]
METHODS = {"temperature": {"temperature"}, "platt": {"slope", "offset"}, "isotonic": {"logits", "probabilities"}}


def state(checkpoint: Path | str) -> dict:
    return torch.load(checkpoint, weights_only=True)["callbacks"]["ScalingCallback"]


def figures(run: Path | str) -> dict:
    return json.loads((Path(run) / "report" / "report.json").read_text())


def alike(one: object, other: object) -> bool:
    if isinstance(one, dict):
        assert isinstance(other, dict)
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.fixture
def run(trained: Path, workplace: Path) -> Path:
    """A copy of the trained run, to be changed."""
    return shutil.copytree(trained, workplace / "runs" / "tiny")


def test_checkpoints_hold_a_temperature_for_every_task_and_load_safely(trained: Path) -> None:
    splits = json.loads((trained / "splits.json").read_text())
    for name in ("best.ckpt", "last.ckpt"):
        found = state(trained / "checkpoints" / name)
        assert (found["method"], found["per_task"]) == ("temperature", True)
        assert list(found["tasks"]) == TASKS
        for task, fitted in found["tasks"].items():
            assert fitted["cases"] == len(splits[task]["val"])
            assert fitted["voxels"] > 100
            assert fitted["refused"] or fitted["nll_after"] < fitted["nll_before"]
        assert found["single"]["voxels"] == sum(fitted["voxels"] for fitted in found["tasks"].values())


def test_the_report_holds_the_same_figures_before_and_after(trained: Path) -> None:
    report, fitted = figures(trained), state(trained / "checkpoints" / "best.ckpt")
    for found in (*report["tasks"].values(), report["mean"]):
        for region in ("whole", "band"):
            assert found["calibration_scaled"][region].keys() == found["calibration"][region].keys()
            assert all(value is not None for value in found["calibration_scaled"][region].values())
    assert report["scaling"]["method"] == "temperature"
    for task in TASKS:
        parameters = report["scaling"]["tasks"][task]["parameters"]
        assert list(parameters) == ["near", "far"]
        for zone, own in parameters.items():
            assert own["temperature"] == fitted["tasks"][task]["scaling"][zone]["temperature"]
        before, after = (report["tasks"][task][kind]["whole"]["nll"] for kind in ("calibration", "calibration_scaled"))
        assert before != after
    with (trained / "report" / "cases.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        assert all((row[f"{metric}_band_scaled"] == "") == (row[f"{metric}_band"] == "") for metric in METRICS)
    page = " ".join((trained / "report" / "report.html").read_text().split())
    assert "After scaling" in page
    for task in TASKS:
        assert report["scaling"]["tasks"][task]["scaling"] in page
    for region in ("band", "whole"):
        assert (trained / "report" / "figures" / f"reliability-{region}-scaled.png").is_file()


def test_each_case_gets_the_temperature_of_its_nearest_task(
    run: Path, monkeypatch: pytest.MonkeyPatch, workplace: Path
) -> None:
    checkpoint = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    kept = checkpoint["callbacks"]["ScalingCallback"]
    for fitted, temperature in zip([*kept["tasks"].values(), kept["single"]], (2.0, 5.0, 11.0), strict=True):
        for zone in ("near", "far"):
            fitted["scaling"][zone] = {"method": "temperature", "temperature": temperature}
    torch.save(checkpoint, "told.ckpt")
    used: list[float] = []
    scale = ByZone.__call__

    def spy(self: ByZone, *given: Any) -> torch.Tensor:
        used.append(self.parameters()["far"]["temperature"])
        return scale(self, *given)

    monkeypatch.setattr(ByZone, "__call__", spy)
    main(["test", "--ckpt_path", "told.ckpt", "--run", "told"])
    with Path("told/report/cases.csv").open(newline="") as stream:
        nearest = [row["nearest_task"] for row in csv.DictReader(stream) if row["ece_band"]]
    assert used == [{"LiverCT": 2.0, "KidneyT2": 5.0}[task] for task in nearest]
    page = Path("told/report/report.html").read_text()
    assert "The task of a test case is not given" in page
    assert "T = 2.00" in page
    used.clear()
    main(["test", "--ckpt_path", "told.ckpt", "--run", "bare", "--spectral.layers=[]"])
    assert used == [11.0] * len(nearest)
    page = " ".join(Path("bare/report/report.html").read_text().split())
    assert "Without a signature bank" in page
    assert "T = 11.00" in page
    assert "T = 2.00" not in page


def test_calibrating_twice_gives_what_the_training_fitted(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    best = run / "checkpoints" / "best.ckpt"
    before, files = torch.load(best, weights_only=True), sorted(path.name for path in (run / "checkpoints").iterdir())
    metrics = (run / "metrics.csv").read_bytes()
    for flags in ([], ["--calibration.regions=[whole]"]):  # what is measured does not change what is fitted
        main(["calibrate", "--run", str(run), *flags])
        after = torch.load(best, weights_only=True)
        assert alike(after["callbacks"], before["callbacks"])
        assert alike(after["state_dict"], before["state_dict"])
        assert after.keys() == before.keys()
    for task in TASKS:
        fitted = before["callbacks"]["ScalingCallback"]["tasks"][task]
        if not fitted["refused"]:
            maps = r"near T = \d+\.\d\d; far T = \d+\.\d\d"
            line = rf"calibrate: {task} {maps}, NLL 0\.\d{{4}} -> 0\.\d{{4}} on 1 validation case\b"
            assert re.search(line, caplog.text)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == files
    assert (run / "metrics.csv").read_bytes() == metrics
    assert json.loads((run / "run.json").read_text())["calibrate"]["status"] == "finished"


def test_three_processes_fit_what_one_does(run: Path) -> None:
    # More than there are validation cases, so that one has none.
    best = run / "checkpoints" / "best.ckpt"
    before = state(best)
    main(["calibrate", "--run", str(run), "--trainer.strategy=ddp_fork", "--trainer.devices=3"])
    assert alike(state(best), before)


def test_calibrate_replaces_the_method_and_test_applies_it(run: Path) -> None:
    method = "isotonic"
    raw = figures(run)
    main(["calibrate", "--run", str(run), "--scaling.method", method])
    found = state(run / "checkpoints" / "best.ckpt")
    assert found["method"] == method
    for fitted in found["tasks"].values():
        for zone in ("near", "far"):
            kept = set(fitted["scaling"][zone])
            assert zone in fitted["refused"] or kept == {"method"} | METHODS[method]
        assert fitted["nll_after"] <= fitted["nll_before"]
    main(["test", "--run", str(run)])
    scaled = figures(run)
    assert scaled["scaling"]["method"] == method
    for task in TASKS:
        kinds = ("dice", "calibration", "calibration_per_case")
        assert all(scaled["tasks"][task][kind] == raw["tasks"][task][kind] for kind in kinds)
    assert scaled["ood"] == raw["ood"]


@pytest.mark.usefixtures("laid_out")
def test_a_run_that_was_trained_without_scaling_gets_one_afterwards(
    tiny: Path, workplace: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ["--trainer.max_steps=3", "--spectral.layers=[]", "--scaling.method=none"]
    main(["fit", "--config", str(tiny), "--run", "r", *quick])
    assert "ScalingCallback" not in torch.load("r/checkpoints/best.ckpt", weights_only=True)["callbacks"]
    main(["test", "--run", "r"])
    assert figures("r")["scaling"] is None
    assert figures("r")["tasks"]["LiverCT"]["calibration_scaled"] == {}
    assert "After scaling" not in Path("r/report/report.html").read_text()
    assert "the checkpoint holds no scaling" not in caplog.text
    with pytest.raises(SystemExit) as exit_:
        main(["calibrate", "--run", "r"])
    assert exit_.value.code == 2
    assert "scaling.method is none" in capsys.readouterr().err
    main(["calibrate", "--run", "r", "--scaling.method=temperature", "--scaling.per_task=false"])
    assert state("r/checkpoints/best.ckpt")["tasks"] == {}
    main(["test", "--run", "r"])
    assert figures("r")["scaling"]["per_task"] is False
    assert set(figures("r")["tasks"]["LiverCT"]["calibration_scaled"]) == {"whole", "band"}


def test_a_checkpoint_from_before_there_was_scaling_still_tests(
    run: Path, workplace: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    del old["callbacks"]["ScalingCallback"]
    config = yaml.safe_load(old["config"])
    del config["scaling"]
    old["config"] = yaml.safe_dump(config)
    torch.save(old, "old.ckpt")
    main(["test", "--ckpt_path", "old.ckpt"])
    assert "the checkpoint holds no scaling" in caplog.text
    report = figures("old")
    assert report["scaling"] is None
    for task, found in report["tasks"].items():
        assert found["calibration"] == figures(run)["tasks"][task]["calibration"]
        assert found["calibration_scaled"] == {}


def test_another_method_than_the_fitted_one_is_refused_and_none_switches_it_off(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["test", "--run", str(run), "--scaling.method=platt"])
    assert exit_.value.code == 2
    assert "scaling.method=platt" in capsys.readouterr().err
    main(["test", "--run", str(run), "--scaling.method=none"])
    assert figures(run)["scaling"] is None


def test_the_scaling_is_fitted_to_whole_volumes_on_the_image_s_own_grid(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volumes: list[tuple[torch.Tensor, ...]] = []
    counted = ZoneHistograms.of

    def spy(probability: torch.Tensor, label: torch.Tensor, zones: dict[str, torch.Tensor]) -> ZoneHistograms:
        volumes.append((probability, label, sum(zone.int() for zone in zones.values())))
        return counted(probability, label, zones)

    monkeypatch.setattr(ZoneHistograms, "of", spy)
    main(["calibrate", "--run", str(run)])
    kept = state(run / "checkpoints" / "best.ckpt")
    assert len(volumes) == sum(fitted["cases"] for fitted in kept["tasks"].values())
    assert all(torch.equal(times, torch.ones_like(times)) for _, _, times in volumes)
    p, y = (torch.cat([volume[part].flatten() for volume in volumes]) for part in (0, 1))
    exact = bin_volume(p, y)
    assert kept["single"]["voxels"] == exact.voxels
    assert kept["single"]["nll_before"] == pytest.approx(exact.negative_log_likelihood / exact.voxels, abs=1e-5)


def test_local_temperatures_follow_the_image_from_the_checkpoint_on(run: Path) -> None:
    raw, best = figures(run), run / "checkpoints" / "best.ckpt"
    main(["calibrate", "--run", str(run), "--scaling.method=local"])
    found = state(best)
    for fitted in found["tasks"].values():  # one validation case each: there is no stranger to try a network on
        assert fitted["refused"]
        assert fitted["scaling"]["near"]["method"] == "temperature"
    weights = {name: torch.zeros(shape) for name, shape in (("0.weight", (8, 54)), ("0.bias", (8,)))}
    weights |= {name: torch.zeros(shape) for name, shape in (("2.weight", (8, 8)), ("2.bias", (8,)))}
    weights |= {"4.weight": torch.full((1, 8), 2.0), "4.bias": torch.zeros(1)}
    weights["0.weight"][:, 27 + 13] = weights["2.weight"][:, 0] = 1.0  # the intensity of the voxel itself
    told = torch.load(best, weights_only=True)
    local = {"method": "local", "temperature": 2.0, "gain": 0.0, "held_out_gain": 0.0, "weights": weights}
    for fitted in told["callbacks"]["ScalingCallback"]["tasks"].values():
        fitted["scaling"].update(near=local)
        fitted["refused"] = ""
    torch.save(told, best)
    main(["test", "--run", str(run)])
    scaled = figures(run)
    assert "near local T around 2.00; far T" in scaled["scaling"]["tasks"]["LiverCT"]["scaling"]
    for task in TASKS:
        kinds = ("dice", "calibration", "calibration_per_case")
        assert all(scaled["tasks"][task][kind] == raw["tasks"][task][kind] for kind in kinds)
        before, after = (scaled["tasks"][task][kind]["band"] for kind in ("calibration", "calibration_scaled"))
        assert after["nll"] != before["nll"]


@pytest.mark.usefixtures("laid_out")
def test_another_detector_is_fitted_by_calibrate_and_refused_by_test(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = run / "checkpoints" / "best.ckpt"
    config = yaml.safe_load(torch.load(best, weights_only=True)["config"])
    other = ["--spectral.detector", "medmtl.ood.detectors.KNN"]
    with pytest.raises(SystemExit) as ended:
        main(["test", "--run", str(run), *other])
    assert ended.value.code == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert all(word in said for word in ("ByTask", "KNN", "medmtl calibrate"))
    main(["calibrate", "--run", str(run), *other])
    kept = torch.load(best, weights_only=True)
    assert kept["callbacks"]["SpectralCallback"]["detector"] == "knn"
    after = yaml.safe_load(kept["config"])
    assert after["spectral"].pop("detector")["class_path"].endswith(".KNN")
    assert config["spectral"].pop("detector") is None
    assert after == config
    main(["test", "--run", str(run)])
    assert figures(run)["ood"]["verdict"]["score"] == "knn"
