"""Ensembles through `test` and `calibrate`: of two runs, or with dropout, as one model; and which are refused."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import medmtl
from medmtl.cli import main
from medmtl.models.members import weights_digest
from medmtl.results.benchmark import read_records

TASKS = ["LiverCT", "KidneyT2"]
DROPOUT = "--model.ensemble.dropout_passes=2"


@pytest.fixture(scope="session")
def second(tiny: Path, made_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """The best checkpoint of a run that differs from `trained` in its seed."""

    def train(run: Path) -> None:
        main(["fit", "--config", str(tiny), "--run", str(run), "--seed_everything=1", "--spectral.layers=[]"])

    return made_once("second", train) / "checkpoints" / "best.ckpt"


@pytest.fixture
def run(trained: Path, workplace: Path) -> Path:
    """A copy of the trained run, to be changed."""
    return shutil.copytree(trained, workplace / "runs" / "tiny")


def joined(*checkpoints: Path) -> str:
    return f"--model.ensemble.checkpoints=[{','.join(map(str, checkpoints))}]"


def figures(run: Path) -> dict[str, Any]:
    return json.loads((run / "report" / "report.json").read_text())


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "report" / "cases.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def written(run: Path) -> list[bytes]:
    return [(run / "report" / name).read_bytes() for name in ("report.json", "cases.csv", "bins.json")]


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line that the command ends with."""
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(list(argv))
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    return line


@pytest.mark.usefixtures("laid_out")
def test_two_runs_are_tested_as_one_model(
    run: Path, second: Path, workplace: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain, names = rows(run), ("spectral", "p_value", "rejected", "nearest_task", "preprocessing")
    main(["test", "--run", str(run), joined(second)])
    assert f"report.html: the report of best.ckpt is replaced by that of best.ckpt with {second}" in caplog.text
    pooled, report = rows(run), figures(run)
    for before, after in zip(plain, pooled, strict=True):
        # The task comes from the run's own network; segmentation and confidence from the pool.
        assert [before[name] for name in names] == [after[name] for name in names]
        assert before["entropy"] != after["entropy"]
        assert (before["nll_band"] == after["nll_band"]) == (before["nll_band"] == "")
        assert 0 < float(after["mutual_information"]) < 0.7
        assert 0 <= float(after["pairwise_dice_distance"]) <= 1
    assert "mutual_information" not in plain[0]
    assert 0 <= report["ood"]["scores"]["pairwise_dice_distance"]["auroc"] <= 1
    assert f"with {second}; probabilities averaged" in (run / "report" / "report.html").read_text()
    for task in TASKS:
        assert report["tasks"][task]["calibration_scaled"]["band"]["nll"] > 0
    # The checkpoint does not change.
    kept = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert yaml.safe_load(kept["config"])["model"]["ensemble"] is None


def test_each_member_is_scaled_by_the_temperature_in_its_own_checkpoint(run: Path, second: Path) -> None:
    main(["test", "--run", str(run), joined(second)])
    raw, before = figures(run)["tasks"], rows(run)
    cold = torch.load(second, weights_only=True)
    for fitted in cold["callbacks"]["ScalingCallback"]["tasks"].values():
        fitted["scaling"]["near"] = {"method": "temperature", "temperature": 9.0}
    torch.save(cold, "cold.ckpt")
    main(["test", "--run", str(run), joined(Path("cold.ckpt"))])
    for task, found in figures(run)["tasks"].items():
        assert found["calibration"] == raw[task]["calibration"]
        assert found["calibration_scaled"] != raw[task]["calibration_scaled"]
    assert [row["dice"] for row in rows(run)] == [row["dice"] for row in before]


def test_a_pool_of_one_is_the_plain_model_and_dropout_gives_the_same_figures_every_time(run: Path) -> None:
    plain = written(run)
    main(["test", "--run", str(run), "--model.ensemble.average=logits", "--model.ensemble.scale=pool"])
    assert written(run) == plain
    main(["test", "--run", str(run), DROPOUT])
    first = written(run)
    assert first != plain
    two = ["--trainer.strategy=ddp_fork", "--trainer.devices=2"]
    main(["test", "--run", str(run), DROPOUT, "--seed_everything=7", *two])
    assert written(run) == first


def test_the_pool_is_calibrated_as_one_and_the_checkpoint_remembers_for_which(
    run: Path, second: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best, alone = run / "checkpoints" / "best.ckpt", written(run)
    own = torch.load(best, weights_only=True)
    main(["calibrate", "--run", str(run), joined(second), "--scaling.method=platt"])
    kept = torch.load(best, weights_only=True)
    digests = [weights_digest(torch.load(path, weights_only=True)) for path in (best, second)]
    identity = f"the averaged probabilities of {', '.join(sorted(digests))}"
    ((fitted_for, state),) = kept["callbacks"]["ScalingCallback"].pop("ensembles").items()
    assert (fitted_for, state["method"]) == (identity, "platt")
    # What was fitted for the network by itself stands beside it, untouched, and so do its options.
    assert kept["callbacks"]["ScalingCallback"] == own["callbacks"]["ScalingCallback"]
    assert kept["config"] == own["config"]
    # The same networks, wherever they lie.
    moved, pool = Path(shutil.copy(second, workplace / "moved.ckpt")), "--model.ensemble.scale=pool"
    main(["test", "--run", str(run), joined(moved), pool, "--scaling.method=platt"])
    report = figures(run)
    assert report["scaling"]["ensemble"] == identity
    for task in TASKS:
        fitted = state["tasks"][task]
        for zone, parameters in report["scaling"]["tasks"][task]["parameters"].items():
            assert parameters == {name: value for name, value in fitted["scaling"][zone].items() if name != "method"}
        before, after = (report["tasks"][task][kind]["whole"]["nll"] for kind in ("calibration", "calibration_scaled"))
        assert before != after
    assert "add --scaling.method platt" in refused(capsys, "test", "--run", str(run), joined(moved), pool)
    for flags, found in (
        ([joined(moved), pool, "--model.ensemble.average=logits"], "this is the averaged logits of"),
        ([joined(moved), pool, DROPOUT], "with 2 dropout passes"),
        ([pool, DROPOUT], f"this is the averaged probabilities of {digests[0]} with 2 dropout passes"),
    ):
        line = refused(capsys, "test", "--run", str(run), *flags, "--scaling.method=platt")
        assert f"the scaling was fitted for the network alone; {identity}" in line
        assert found in line
        assert "medmtl calibrate" in line
    # By itself, and as a member, the network has its own.
    main(["test", "--run", str(run), joined(moved)])
    assert figures(run)["scaling"]["ensemble"] == ""
    main(["test", "--run", str(run)])
    assert written(run) == alone
    # Fitting again for the network by itself keeps what was fitted for the ensemble.
    main(["calibrate", "--run", str(run)])
    assert list(torch.load(best, weights_only=True)["callbacks"]["ScalingCallback"]["ensembles"]) == [identity]


def test_what_was_fitted_for_an_ensemble_alone_is_not_used_for_the_network(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = run / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(best, weights_only=True)
    state = checkpoint["callbacks"].pop("ScalingCallback")
    checkpoint["callbacks"]["ScalingCallback"] = {"ensembles": {"the averaged probabilities of others": state}}
    torch.save(checkpoint, best)
    line = refused(capsys, "test", "--run", str(run))
    assert "fitted for the averaged probabilities of others, and this is the network alone" in line
    assert medmtl.load(run).scalings is None


def other_network(checkpoint: dict[str, Any]) -> None:
    checkpoint["state_dict"]["network.model.0.conv.weight"] = torch.zeros(6, 1, 3, 3, 3)


def other_tasks(checkpoint: dict[str, Any]) -> None:
    config = yaml.safe_load(checkpoint["config"])
    config["data"]["held_out"] = ["KidneyT2"]
    checkpoint["config"] = yaml.safe_dump(config)


def other_task(key: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(checkpoint: dict[str, Any]) -> None:
        config = yaml.safe_load(checkpoint["config"])
        config["data"]["tasks"]["LiverCT"][key] = value
        checkpoint["config"] = yaml.safe_dump(config)

    return change


def turned_split(part: str, into: str) -> Callable[[dict[str, Any]], None]:
    def turn(checkpoint: dict[str, Any]) -> None:
        patients = checkpoint["MultiTaskData"]["patients"]
        checkpoint["MultiTaskData"]["patients"] = {name: {part: into}.get(old, old) for name, old in patients.items()}

    return turn


def no_scaling(checkpoint: dict[str, Any]) -> None:
    del checkpoint["callbacks"]["ScalingCallback"]


def nothing(checkpoint: dict[str, Any]) -> None:
    pass


@pytest.mark.parametrize(
    ("change", "command", "flags", "found"),
    [
        (other_network, "test", [], "other.ckpt holds another network: model.0.conv.weight is (6, 1, 3, 3, 3) there"),
        (
            other_tasks,
            "test",
            [],
            "other.ckpt was trained on other tasks: KidneyT2 is absent there and organ [1, 2] of",
        ),
        (other_task("spacing", [4, 4, 4]), "test", [], "LiverCT is organ [1] of channel 0 at 4 x 4 x 4 mm, -160 to"),
        (other_task("organ", [2]), "test", [], "LiverCT is organ [2] of channel 0 at 8 x 8 x 8 mm"),
        (turned_split("test", "train"), "test", [], "a test patient here"),
        (turned_split("test", "val"), "test", [], "other.ckpt was chosen by"),
        (turned_split("val", "train"), "calibrate", [], "a validation patient here"),
        (no_scaling, "test", [], "other.ckpt holds no scaling"),
        (nothing, "test", [joined(Path("none.ckpt"))], "none.ckpt does not exist"),
        (nothing, "test", [joined(Path("runs/tiny/checkpoints/best.ckpt"))], "holds the network of"),
        (nothing, "test", [joined(Path("other.ckpt"), Path("other.ckpt"))], "leave one out"),
        (nothing, "test", [DROPOUT, "--model.network.init_args.dropout=0.0"], "UNet has no dropout layer"),
        (nothing, "test", ["--model.ensemble.dropout_passes=-1"], "dropout_passes=-1"),
    ],
)
def test_what_does_not_belong_together_is_one_line(
    run: Path, second: Path, capsys: pytest.CaptureFixture[str], change: Any, command: str, flags: list[str], found: str
) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    checkpoint = torch.load(second, weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, "other.ckpt")
    line = refused(capsys, command, "--run", "runs/tiny", *(flags or [joined(Path("other.ckpt"))]))
    assert found in line
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()} == before


def test_a_split_that_differs_where_nothing_is_measured_does_not_matter(run: Path, second: Path) -> None:
    checkpoint = torch.load(second, weights_only=True)
    turned_split("val", "train")(checkpoint)
    torch.save(checkpoint, "other.ckpt")
    main(["test", "--run", str(run), joined(Path("other.ckpt"))])
    assert (run / "report" / "report.html").is_file()


def test_an_ensemble_is_not_trained(tiny: Path, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "fit", "--config", str(tiny), "--run", "r", DROPOUT)
    assert "model.ensemble is for `medmtl test` and `medmtl calibrate`" in line
    assert not Path("r").exists()


def test_help_explains_ensembles(capsys: pytest.CaptureFixture[str]) -> None:
    for option, words in (
        ("--help.model", "--model.ensemble ENSEMBLE"),
        ("--model.ensemble.help", "Monte Carlo dropout"),
    ):
        with pytest.raises(SystemExit) as exit_:
            main(["test", option])
        assert exit_.value.code == 0
        assert words in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("members", ["checkpoints", "dropout"])
def test_detectors_may_read_the_disagreement_that_a_test_reports(run: Path, second: Path, members: str) -> None:
    ensemble, flag = {
        "checkpoints": (joined(second), f"--ensemble_checkpoints=[{second}]"),
        "dropout": (DROPOUT, "--dropout_passes=2"),
    }[members]
    outputs = ("mutual_information", "pairwise_dice_distance")
    read = [
        {"class_path": "medmtl.ood.detectors.output.OutputScore", "init_args": {"output": output}} for output in outputs
    ]
    Path("disagreement.yaml").write_text(yaml.safe_dump({"detectors": read, "shifts": [], "processes": 1}))
    main(["ood", "--run", str(run), "--config", "disagreement.yaml", flag])
    main(["test", "--run", str(run), ensemble])
    records = [record for record in read_records(run / "ood" / "ood.csv") if record.group in ("in_distribution", "far")]
    tested = {row["case"]: row for row in rows(run)}
    assert len(records) == 2 * len(tested) > 0
    for record in records:
        assert record.score == pytest.approx(float(tested[record.case][record.detector]), rel=1e-5, abs=1e-9)
    # Other members are other observations; the same ones are not looked at again.
    cache = run / "ood" / "cache"
    before = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    main(["ood", "--run", str(run), "--config", "disagreement.yaml", flag])
    assert {path: path.stat().st_mtime_ns for path in cache.iterdir()} == before
    main(["ood", "--run", str(run), "--config", "disagreement.yaml", "--dropout_passes=3"])
    assert len(list(cache.iterdir())) == 2 * len(before)


def test_members_trained_on_the_images_they_are_tested_with_are_refused(
    run: Path, second: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part, words in (("val", "a validation patient here"), ("test", "a test patient here")):
        checkpoint = torch.load(second, weights_only=True)
        turned_split(part, "train")(checkpoint)
        torch.save(checkpoint, "other.ckpt")
        assert words in refused(capsys, "ood", "--run", str(run), "--ensemble_checkpoints=[other.ckpt]")
