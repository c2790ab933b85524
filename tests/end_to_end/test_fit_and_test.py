"""`medmtl fit` and `medmtl test` as they are documented, through `main` in this process."""

import csv
import json
import random
import re
import shutil
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from medmtl.cli import main
from medmtl.training.lightning_cli import CommandTrainer

CALIBRATION = {"ece", "ace", "mce", "brier", "nll", "gap", "volume_ratio"}


def figures(run: Path) -> dict:
    return json.loads((run / "report" / "report.json").read_text())


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def error_of(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as exit_:
        main(list(argv))
    lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(lines) == 1, lines
    return exit_.value.code, lines[0]


def test_a_run_is_one_folder(trained: Path) -> None:
    for name in ("config.yaml", "config.test.yaml", "splits.json", "run.json", "metrics.csv"):
        assert (trained / name).is_file(), name
    for name in ("best.ckpt", "last.ckpt"):
        assert (trained / "checkpoints" / name).is_file(), name
    for name in ("report.json", "cases.csv", "report.html"):
        assert (trained / "report" / name).is_file(), name
    assert not [path for path in trained.rglob(".*") if path.is_file()]
    manifest = json.loads((trained / "run.json").read_text())
    assert manifest["fit"]["status"] == manifest["test"]["status"] == "finished"
    assert manifest["fit"]["steps"] == 6
    assert manifest["fit"]["precision"] == "32-true"


def test_report_json_holds_what_is_documented(trained: Path) -> None:
    report = figures(trained)
    splits = json.loads((trained / "splits.json").read_text())
    assert report["schema"] == 2
    assert report["run"] == "tiny"
    assert list(report["tasks"]) == ["LiverCT", "KidneyT2"]
    for name, task in report["tasks"].items():
        assert task["cases"] == len(splits[name]["test"])
        assert 0 <= task["dice"]["mean"] <= 1
        for region in ("whole", "band"):
            assert set(task["calibration"][region]) == CALIBRATION
    ood = report["ood"]
    assert ood["in_cases"] == sum(task["cases"] for task in report["tasks"].values())
    assert ood["out_cases"] == 12
    for score in ("spectral", "entropy", "max_softmax"):
        assert {"auroc", "aupr_out", "fpr_at_95_in_kept", "fpr_at_95_out_found"} <= set(ood["scores"][score])
    assert {"alpha", "false_alarm_rate", "detection_rate"} <= set(ood["verdict"])
    assert ood["verdict"]["alpha"] == 0.5


def test_logged_figures_are_those_of_the_report(trained: Path) -> None:
    logged = [row for row in rows(trained) if row.get("test/mean/dice")][-1]
    report = figures(trained)
    for task, found in report["tasks"].items():
        assert float(logged[f"test/{task}/dice"]) == pytest.approx(found["dice"]["mean"], abs=1e-6)
        assert float(logged[f"test/{task}/ace_band"]) == pytest.approx(found["calibration"]["band"]["ace"], abs=1e-6)
        per_case = found["calibration_per_case"]["whole"]["nll"]
        assert float(logged[f"test/{task}/nll_whole_per_case"]) == pytest.approx(per_case, abs=1e-6)
        assert float(logged[f"test/{task}/hd95_mm"]) == pytest.approx(found["hd95_mm"]["mean"], rel=1e-6)
        assert float(logged[f"test/{task}/asd_mm"]) == pytest.approx(found["asd_mm"]["mean"], rel=1e-6)
    assert float(logged["test/mean/hd95_mm"]) == pytest.approx(report["mean"]["hd95_mm"], rel=1e-6)
    assert float(logged["test/mean/dice"]) == pytest.approx(report["mean"]["dice"], abs=1e-6)


def test_the_order_of_callbacks_changes_no_result(
    trained: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, orders = Path(shutil.copytree(trained, "tiny")), []
    original = CommandTrainer.test

    @wraps(original)  # the command line reads the signature
    def reordered(trainer: CommandTrainer, *args: Any, **options: Any) -> Any:
        random.Random(len(orders)).shuffle(trainer.callbacks) if orders else trainer.callbacks.reverse()
        orders.append([type(callback).__name__ for callback in trainer.callbacks])
        return original(trainer, *args, **options)

    monkeypatch.setattr(CommandTrainer, "test", reordered)
    for _ in range(2):
        shutil.rmtree(run / "report")
        main(["test", "--run", "tiny"])
        for name in ("report.json", "cases.csv", "bins.json"):
            assert (run / "report" / name).read_bytes() == (trained / "report" / name).read_bytes(), orders
    assert orders[0] != orders[1]
    ours = {"CalibrationCallback", "SpectralCallback", "ScalingCallback", "ReportCallback"}
    assert all(ours <= set(order) for order in orders)


def test_a_metric_of_one_s_own_is_in_every_table(
    trained: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(trained, "tiny"))
    Path("own_metric.py").write_text(
        "from medmtl.calibration import BinMetric\n\n\n"
        "class Voxels(BinMetric):\n"
        "    key, label, unit, higher_is_better, digits = 'voxels', 'Voxels measured', 'k', True, 1\n\n"
        "    def __call__(self, table):\n        return table.voxels / 1000\n"
    )
    monkeypatch.syspath_prepend(workplace)
    main(["test", "--run", "tiny", "--calibration.metrics=[{class_path: own_metric.Voxels}]"])
    report, plain = figures(run), figures(trained)
    description = {"label": "Voxels measured", "unit": "k", "higher_is_better": True, "digits": 1, "short": ""}
    assert report["metrics"].pop("voxels") == description
    assert report["metrics"] == plain["metrics"]
    found = report["tasks"]["LiverCT"]["calibration"]["whole"].pop("voxels")
    assert report["tasks"]["LiverCT"]["calibration"]["whole"] == plain["tasks"]["LiverCT"]["calibration"]["whole"]
    with (run / "report" / "cases.csv").open(newline="") as stream:
        cases = [row for row in csv.DictReader(stream) if row["dataset"] == "LiverCT"]
    assert sum(float(row["voxels_whole"]) for row in cases) == pytest.approx(found)
    logged = [row for row in rows(run) if row.get("test/mean/dice")][-1]
    assert float(logged["test/LiverCT/voxels_whole"]) == pytest.approx(found)
    page = (run / "report" / "report.html").read_text()
    assert "Voxels measured, k ↑" in page
    assert f"{found:.2f}" in page


def test_validation_is_logged_every_epoch_and_survives_the_test(trained: Path) -> None:
    steps = [int(row["step"]) for row in rows(trained) if row.get("val/mean/dice")]
    assert steps == [2, 5]
    assert all(row[f"val/{task}/ece_band"] for row in rows(trained) if row.get("val/mean/dice") for task in ["LiverCT"])


def test_the_same_seed_gives_the_same_figures(trained: Path, tiny: Path, tmp_path: Path) -> None:
    again = tmp_path / "runs" / "tiny"
    main(["fit", "--config", str(tiny), "--run", str(again)])
    main(["test", "--run", str(again)])
    assert figures(again) == figures(trained)
    other = tmp_path / "runs" / "tiny-other"
    main(["fit", "--config", str(tiny), "--run", str(other), "--seed_everything", "1"])
    main(["test", "--run", str(other)])
    assert figures(other)["tasks"] != figures(trained)["tasks"]


def test_a_checkpoint_alone_is_enough(trained: Path, workplace: Path) -> None:
    shutil.copy(trained / "checkpoints" / "best.ckpt", "alone.ckpt")
    main(["test", "--ckpt_path", "alone.ckpt"])
    alone = json.loads((workplace / "alone" / "report" / "report.json").read_text())
    expected = figures(trained)
    assert alone["tasks"] == expected["tasks"]
    assert alone["ood"] == expected["ood"]


def test_best_holds_bank_threshold_and_split_and_loads_safely(trained: Path) -> None:
    best = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)
    state = best["callbacks"]["SpectralCallback"]
    splits = json.loads((trained / "splits.json").read_text())
    for task, parts in splits.items():
        in_bank = [
            case for case, owner in zip(state["bank"]["cases"], state["bank"]["tasks"], strict=True) if owner == task
        ]
        assert sorted(in_bank) == sorted(parts["train"])
        assert [each[0] for each in state["held_out"]].count(task) == len(parts["val"])
    assert best["MultiTaskData"]["splits"] == splits


@pytest.mark.usefixtures("laid_out")
def test_last_has_no_bank_and_says_so(trained: Path, workplace: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copy(trained / "checkpoints" / "last.ckpt", "last.ckpt")
    main(["test", "--ckpt_path", "last.ckpt"])
    report = json.loads((workplace / "last" / "report" / "report.json").read_text())
    assert "no signature bank" in caplog.text
    assert "no signature bank" in report["ood"]["note"]
    assert report["ood"]["scores"] == {}
    assert report["tasks"]["LiverCT"]["calibration"]["band"]["ece"] is not None


@pytest.mark.usefixtures("laid_out")
def test_flags_beat_the_checkpoint_and_the_configuration(trained: Path, tiny: Path, workplace: Path) -> None:
    checkpoint = str(trained / "checkpoints" / "best.ckpt")
    flags = ["--spectral.alpha", "0.25", "--calibration.bins=7", "--calibration.regions=[whole,shell,likely]"]
    main(["test", "--ckpt_path", checkpoint, "--run", "a", *flags])
    resolved = yaml.safe_load(Path("a/config.test.yaml").read_text())
    assert resolved["spectral"]["alpha"] == 0.25
    assert resolved["calibration"] == {"bins": 7, "regions": ["whole", "shell", "likely"], "metrics": None}
    assert list(figures(Path("a"))["mean"]["calibration"]) == ["whole", "shell", "likely"]
    assert "unfit for comparing models" in Path("a/report/report.html").read_text()
    assert figures(Path("a"))["ood"]["verdict"]["alpha"] == 0.25

    other = yaml.safe_load(tiny.read_text())
    other["spectral"]["alpha"] = 0.125
    Path("other.yaml").write_text(yaml.safe_dump(other))
    main(["test", "--ckpt_path", checkpoint, "--run", "b", "--config", "other.yaml"])
    assert figures(Path("b"))["ood"]["verdict"]["alpha"] == 0.125


def test_flags_beat_the_configuration_of_fit(
    trained: Path, tiny: Path, workplace: Path, caplog: pytest.LogCaptureFixture
) -> None:
    main(
        [
            "fit",
            "--config",
            str(tiny),
            "--trainer.max_steps=1",
            "--data.batches=1",
            "--model.optimizer.init_args.lr=0.5",
            "--trainer.precision=bf16-mixed",
        ]
    )
    resolved = yaml.safe_load(Path("runs/tiny/config.yaml").read_text())
    assert resolved["model"]["optimizer"]["init_args"]["lr"] == 0.5
    facts = json.loads(Path("runs/tiny/run.json").read_text())["fit"]
    assert (facts["steps"], facts["precision"]) == (1, "bf16-mixed")
    assert "wrong gradients" in caplog.text


def test_linked_values_arrive(trained: Path) -> None:
    best = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)
    config = yaml.safe_load(best["config"])
    assert "patch_size" not in config["model"]  # it is linked to data.patch_size
    assert config["data"]["patch_size"] == [16, 16, 16]


def test_an_option_that_no_longer_exists_is_left_out_of_an_old_checkpoint(
    trained: Path, workplace: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)
    config = yaml.safe_load(old["config"])
    config["model"]["forgotten"] = 3
    old["config"] = yaml.safe_dump(config)
    torch.save(old, "old.ckpt")
    main(["test", "--ckpt_path", "old.ckpt"])
    assert "model.forgotten" in caplog.text


def test_runs_are_numbered_and_the_newest_is_tested(
    tiny: Path, workplace: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    flags = ["--trainer.max_steps=1", "--data.batches=1", "--spectral.alpha=0.05", "--trainer.enable_progress_bar=true"]
    for _ in range(2):
        main(["fit", "--config", str(tiny), *flags])
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == "next: medmtl test --run runs/tiny-2"
    assert not re.search(r"v_num|Epoch|it/s|Loading dataset|%", printed.out + printed.err)  # of Lightning and MONAI
    (few, _) = [text for text in caplog.messages if text.startswith("too few patients for verdicts")]
    assert "2 are held out (data.val) and 2 trained on; at spectral.alpha = 0.05 at least 17 have to be held out" in few
    assert sorted(path.name for path in Path("runs").iterdir()) == ["tiny", "tiny-2"]
    main(["test", "--config", str(tiny)])
    assert Path("runs/tiny-2/report/report.html").is_file()
    assert not Path("runs/tiny/report").exists()


def test_a_taken_folder_is_refused_unless_overwritten(
    tiny: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ["--config", str(tiny), "--run", "x", "--trainer.max_steps=1", "--data.batches=1"]
    main(["fit", *quick])
    before = Path("x/checkpoints/best.ckpt").stat().st_mtime_ns
    code, line = error_of(capsys, "fit", *quick)
    assert code == 1
    assert "x already holds a run" in line
    assert "--resume" in line
    assert Path("x/checkpoints/best.ckpt").stat().st_mtime_ns == before
    main(["fit", *quick, "--overwrite"])
    assert Path("x/checkpoints/best.ckpt").stat().st_mtime_ns > before


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(trained: Path, tiny: Path, workplace: Path) -> None:
    # The scheduler must know the whole length from the start, as it does in an interrupted run.
    whole = ["--model.scheduler.init_args.total_steps=6"]
    main(["fit", "--config", str(tiny), "--run", "r", "--trainer.max_steps=3", *whole])
    main(["fit", "--run", "r", "--resume", "--trainer.max_steps=6"])
    resumed = torch.load("r/checkpoints/last.ckpt", weights_only=True)
    through = torch.load(trained / "checkpoints" / "last.ckpt", weights_only=True)
    assert resumed["global_step"] == through["global_step"] == 6
    validated = [row["epoch"] for row in rows(Path("r")) if row.get("val/mean/dice")]
    assert validated == ["0", "1"]


def test_an_interrupt_leaves_a_last_checkpoint_that_tests_and_resumes(
    tiny: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medmtl.models.segmenter import Segmenter

    training_step = Segmenter.training_step

    def interrupted(self: Segmenter, batch: dict, index: int) -> torch.Tensor:
        if self.global_step == 2:
            raise KeyboardInterrupt
        return training_step(self, batch, index)

    monkeypatch.setattr(Segmenter, "training_step", interrupted)
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(tiny), "--run", "r"])
    monkeypatch.setattr(Segmenter, "training_step", training_step)
    assert torch.load("r/checkpoints/last.ckpt", weights_only=True)["global_step"] == 2
    main(["test", "--run", "r"])
    assert figures(Path("r"))["ood"]["note"]
    main(["fit", "--run", "r", "--resume"])
    assert json.loads(Path("r/run.json").read_text())["fit"]["steps"] == 6
    main(["test", "--run", "r"])
    assert figures(Path("r"))["ood"]["scores"]["spectral"]["auroc"] is not None


@pytest.mark.usefixtures("laid_out")
def test_a_held_out_task_is_out_of_distribution(tiny: Path, workplace: Path) -> None:
    main(["fit", "--config", str(tiny), "--run", "h", "--data.held_out=[KidneyT2]"])
    main(["test", "--run", "h"])
    report = figures(Path("h"))
    splits = json.loads(Path("h/splits.json").read_text())
    assert list(report["tasks"]) == ["LiverCT"]
    assert report["ood"]["out_cases"] == 12 + len(splits["KidneyT2"]["test"])
    bank = torch.load("h/checkpoints/best.ckpt", weights_only=True)["callbacks"]["SpectralCallback"]["bank"]
    assert set(bank["tasks"]) == {"LiverCT"}


def test_a_copied_run_goes_on_in_its_own_folder(tiny: Path, workplace: Path) -> None:
    steady = ["--model.scheduler=null", "--trainer.max_steps=3"]
    main(["fit", "--config", str(tiny), "--run", "original", *steady])
    shutil.copytree("original", "copy")
    before = Path("original/checkpoints/best.ckpt").read_bytes()
    main(["fit", "--run", "copy", "--resume", "--trainer.max_steps=6"])
    assert Path("original/checkpoints/best.ckpt").read_bytes() == before
    assert {path.name for path in Path("copy/checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    copied, original = (torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True) for run in ("copy", "original"))
    assert (copied["global_step"], original["global_step"]) == (6, 3)


def test_a_checkpoint_of_another_network_is_one_line(
    tiny: Path, trained: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wider = "--model.network.init_args.channels=[4,16]"
    code, line = error_of(capsys, "test", "--ckpt_path", str(trained / "checkpoints/best.ckpt"), "--run", "r", wider)
    assert code == 1
    assert "holds another network" in line


def test_a_schedule_that_cannot_be_made_or_has_ended_is_one_line(
    tiny: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rise = "--model.scheduler.init_args.pct_start=0.5"  # of two steps: one
    code, line = error_of(capsys, "fit", "--config", str(tiny), "--run", "a", "--trainer.max_steps=2", rise)
    assert code == 2
    assert "cannot be spread over 2 steps" in line
    main(["fit", "--config", str(tiny), "--run", "b", "--trainer.max_steps=3"])
    capsys.readouterr()
    code, line = error_of(capsys, "fit", "--run", "b", "--resume", "--trainer.max_steps=6")
    assert code == 2
    assert "schedule of the learning rate has ended" in line


def test_wrong_layers_are_named_before_training(
    tiny: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, line = error_of(capsys, "fit", "--config", str(tiny), "--spectral.layers=[model.9]")
    assert code == 2
    assert "'model.9'" in line
    assert "model.0" in line
