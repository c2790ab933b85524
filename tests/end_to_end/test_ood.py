"""`medmtl ood` on a trained run: every image is looked at once, whatever happens in between, and the table follows."""

import csv
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from medmtl.cli import main
from medmtl.extras import how_to_install
from medmtl.models.sliding_window import VolumePredictor
from medmtl.ood.shifts import SHIFTS
from medmtl.ood_benchmark import worker
from medmtl.ood_benchmark.images import Image
from medmtl.results.benchmark import read_records

TASKS = ["LiverCT", "KidneyT2"]
PREPROCESSINGS = 2


@pytest.fixture
def run(trained: Path, workplace: Path) -> Path:
    """A copy of the trained run, to be changed."""
    return shutil.copytree(trained, workplace / "runs" / "tiny")


@pytest.fixture
def benchmark(workplace: Path, phantom_store: Path) -> Path:
    """Two detectors; one far folder that is not there, and the other task's own data as near images."""
    config = {
        "detectors": [
            "Spectral",
            {"class_path": "OutputScore", "init_args": {"output": "entropy"}},
            {
                "class_path": "medmtl.ood.detectors.OutputScore",
                "init_args": {"output": "pairwise_dice_distance"},
            },
        ],
        "shifts": ["noise", "crop", "flip", "empty"],
        "severities": [1, 5],
        "cases": 1,
        "far": {"Nowhere": {"root": "${MEDMTL_NOT_SET}/Nowhere"}},
        "near": {
            "Again": {
                "root": str(phantom_store / "phantoms-v1" / "KidneyT2"),
                "task": "KidneyT2",
                "organ": [1, 2],
                "patient": ".*",
            }
        },
        "alpha": 0.5,
        "processes": 1,
    }
    path = workplace / "small.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture
def volumes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every volume that a network is run over."""
    found: list[int] = []
    logits = VolumePredictor.logits_of

    def spy(self: VolumePredictor, *arguments: object) -> object:
        found.append(1)
        return logits(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(VolumePredictor, "logits_of", spy)
    monkeypatch.setattr(worker, "flip_disagreement", lambda *_: 0.1)  # mirrored images are not counted
    return found


def ood(run: Path, config: Path | str, *flags: str) -> None:
    main(["ood", "--run", str(run), "--config", str(config), *flags])


def test_it_scores_every_image_and_names_what_it_left_out(
    run: Path, benchmark: Path, volumes: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    ood(run, benchmark)
    found = read_records(run / "ood" / "ood.csv")
    records = [record for record in found if record.group != "training"]
    assert len(found) == len(records) + 2 * 2  # training images as scored by what was fitted to the other one
    summary = json.loads((run / "ood" / "ood.json").read_text())
    # Of a task one case each for training, validation and test; two severities of two shifts, a control, a nonsense;
    # near are the test case and the two images of the data folder that have no label.
    expected = {
        "calibration": 2,
        "in_distribution": 2,
        "covariate": 2 * 4,
        "control": 2,
        "nonsense": 2,
        "near": 3,
        "far": 12,
    }
    assert summary["images"] == {group: expected[group] for group in summary["images"]}
    assert summary["images"].keys() == expected.keys()
    assert len(records) == 2 * sum(expected.values())
    # Training images have their own preprocessing alone.
    assert len(volumes) == 2 + PREPROCESSINGS * sum(expected.values())
    unlabelled = ["phantom_KidneyT2_004", "phantom_KidneyT2_005"]
    for record in records:
        without_label = record.group in ("far", "nonsense") or record.case in unlabelled
        assert (record.dice is None) == without_label
        assert (record.p_value is None) == (record.group == "calibration")
        assert record.condition == {"far": "OtherPhantom", "near": "Again"}.get(record.group, record.condition)
        assert (record.task in TASKS) == (record.group == "nonsense" or not without_label)
        if record.condition in SHIFTS:
            assert record.group == SHIFTS[record.condition].kind
            assert (record.severity == 0) == (record.condition in ("flip", "empty"))
    assert summary["schema"] == 2
    assert list(summary["scores"]) == list(summary["detectors"]) == ["spectral", "entropy"]
    assert summary["scores"]["spectral"]["label"] == "Spectral (per voxel, ours)"
    assert list(summary["shifts"]) == ["noise", "crop", "flip", "empty"]
    assert summary["detectors"]["spectral"].keys() == {
        "far",
        "near",
        "covariate",
        "covariate_severe",
        "nonsense",
        "mean",
    }
    assert summary["verdict"]["detector"] == "spectral"
    assert summary["verdict"]["alpha"] == 0.5
    assert summary["failure"]["entropy"]["images"] == 2 + 8 + 2 + 1
    notes = "\n".join(summary["notes"])
    assert "Nowhere is left out: MEDMTL_NOT_SET is not set" in notes
    assert "Again: 2 of 5 images are left out" in notes
    assert "pairwise_dice_distance is left out" in notes
    said = capsys.readouterr().out
    assert "spectral" in said
    assert "ood.html" in said


def test_scores_dice_and_verdicts_are_those_of_the_report(run: Path, benchmark: Path) -> None:
    ood(run, benchmark, "--shifts=[flip]")
    with (run / "report" / "cases.csv").open(newline="") as stream:
        tested = {row["case"]: row for row in csv.DictReader(stream)}
    found = [record for record in read_records(run / "ood" / "ood.csv") if record.group in ("in_distribution", "far")]
    for record in found:
        row = tested[record.case]
        assert record.score == pytest.approx(float(row[record.detector]), rel=1e-5)
        assert (record.dice is None) == (row["dice"] == "")
        assert record.dice is None or record.dice == pytest.approx(float(row["dice"]), abs=1e-6)
        assert record.detector != "spectral" or record.rejected == (row["rejected"] == "True")
    assert len(found) == 2 * len(tested)
    with (run / "ood" / "verdicts.csv").open(newline="") as stream:
        judged = {row["case"]: row for row in csv.DictReader(stream) if row["group"] in ("in_distribution", "far")}
    assert judged.keys() == tested.keys()
    said = {"True": "1", "False": "0", "": ""}
    for case, row in tested.items():
        assert (judged[case]["mask_reliable"], judged[case]["rejected"]) == (
            said[row["mask_reliable"]],
            said[row["rejected"]],
        )
        assert judged[case]["nearest_task"] == row["nearest_task"]


def test_a_second_run_looks_at_nothing_and_another_network_at_everything(
    run: Path, benchmark: Path, volumes: list[int]
) -> None:
    ood(run, benchmark)
    table, first = (run / "ood" / "ood.csv").read_bytes(), len(volumes)
    ood(run, benchmark, "--alpha=0.25")
    assert len(volumes) == first
    ood(run, benchmark)
    assert (run / "ood" / "ood.csv").read_bytes() == table
    # Another severity is looked at, the others are not; and one damaged file costs one image.
    ood(run, benchmark, "--severities=[1,3,5]")
    assert len(volumes) == first + PREPROCESSINGS * len(TASKS) * 2
    checkpoint = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    checkpoint["state_dict"] = {name: value * 1.01 for name, value in checkpoint["state_dict"].items()}
    torch.save(checkpoint, run / "checkpoints" / "best.ckpt")
    ood(run, benchmark)
    assert len(volumes) == 2 * first + PREPROCESSINGS * len(TASKS) * 2
    assert (run / "ood" / "ood.csv").read_bytes() != table


def test_stopped_in_the_middle_it_goes_on_where_it_was(
    run: Path,
    benchmark: Path,
    volumes: list[int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    look: Callable[[worker.Worker, Image, str], None] = worker.Worker.__call__

    def stop(self: worker.Worker, image: Image, key: str) -> None:
        if image.group == "in_distribution":
            raise KeyboardInterrupt
        look(self, image, key)

    with monkeypatch.context() as patched:
        patched.setattr(worker.Worker, "__call__", stop)
        with pytest.raises(SystemExit) as exit_:
            ood(run, benchmark)
    assert exit_.value.code == 130
    assert capsys.readouterr().err.splitlines()[-1].startswith("medmtl: interrupted: observed images are kept")
    done = len(volumes)
    assert done > 0
    assert not (run / "ood" / "ood.csv").exists()
    ood(run, benchmark)
    stopped, table = len(volumes), (run / "ood" / "ood.csv").read_bytes()
    shutil.rmtree(run / "ood")
    ood(run, benchmark)
    assert len(volumes) == 2 * stopped
    assert (run / "ood" / "ood.csv").read_bytes() == table


def test_two_processes_find_what_one_finds(run: Path, benchmark: Path, volumes: list[int]) -> None:
    ood(run, benchmark, "--shifts=[noise]")
    table, first = (run / "ood" / "ood.csv").read_bytes(), len(volumes)
    shutil.rmtree(run / "ood")
    ood(run, benchmark, "--shifts=[noise]", "--processes=2")
    assert len(volumes) == first  # all was done elsewhere
    assert (run / "ood" / "ood.csv").read_bytes() == table


MINE = """
from medmtl.ood.detectors import Detector
from medmtl.ood.shifts import Shift

class Doubt(Detector):
    name, label, reference = "doubt", "Doubt of mine", "a test"

    def fit(self, cases):
        pass

    def score(self, image):
        return image.view.outputs["entropy"]

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass

class Fainter(Shift):
    name, label, strengths, unit = "fainter", "Fainter image", (1.5, 2, 3, 4, 5), "times"

    def change(self, volume, strength, random):
        return volume / strength
"""


def test_a_detector_and_a_shift_of_ones_own_appear_by_their_labels(
    run: Path, benchmark: Path, volumes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(run.parent))
    (run.parent / "shifts_of_a_test.py").write_text(MINE)
    config = yaml.safe_load(benchmark.read_text()) | {"near": {}, "severities": [1]}
    config |= {
        "detectors": ["Spectral", {"class_path": "shifts_of_a_test.Doubt"}],
        "shifts": ["flip", {"class_path": "shifts_of_a_test.Fainter"}],
    }
    benchmark.write_text(yaml.safe_dump(config))
    ood(run, benchmark)
    summary = json.loads((run / "ood" / "ood.json").read_text())
    assert summary["images"]["covariate"] == 2
    assert summary["shifts"]["fainter"]["strengths"] == [1.5, 2, 3, 4, 5]
    assert "Doubt of mine" in (run / "ood" / "ood.html").read_text()
    # Another definition of the shift is computed again, and nothing else.
    before = len(volumes)
    ood(run, benchmark)
    assert len(volumes) == before
    (run.parent / "shifts_of_a_test.py").write_text(MINE + "\n# changed\n")
    ood(run, benchmark)
    assert len(volumes) == before + PREPROCESSINGS * len(TASKS)


def test_the_shipped_benchmark_runs(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("MEDMTL_DATA", "MEDMTL_CORPUS"):
        monkeypatch.delenv(variable, raising=False)
    ood(run, "ood-benchmark-full.yaml", "--cases=0", "--processes=1")  # the short one has the same detectors
    summary = json.loads((run / "ood" / "ood.json").read_text())
    assert summary["images"] == {"calibration": 2, "in_distribution": 2, "far": 12}
    assert "near" not in summary["detectors"]["spectral"]
    assert any("near" in note for note in summary["notes"])
    assert {"spectral", "entropy", "ihf", "volume", "md_pool"} <= set(summary["detectors"])


def test_a_library_that_is_missing_is_missed_before_any_image_is_looked_at(
    run: Path,
    benchmark: Path,
    volumes: list[int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "torchio", None)
    with pytest.raises(SystemExit):
        ood(run, benchmark, "--shifts=[noise,motion]")
    assert how_to_install("ood") in capsys.readouterr().err
    assert not volumes
    ood(run, benchmark, "--shifts=[flip]")


def test_the_benchmark_of_dedicated_runs_leaves_the_run_s_own_tasks_out(
    run: Path, monkeypatch: pytest.MonkeyPatch, phantom_store: Path
) -> None:
    monkeypatch.delenv("MEDMTL_CORPUS", raising=False)
    far = f"--far={{KidneyT2: {{root: {phantom_store / 'phantoms-v1' / 'KidneyT2'}}}}}"
    ood(run, "ood-benchmark-dedicated.yaml", "--layers=[model.0]", "--processes=1", far)
    summary = json.loads((run / "ood" / "ood.json").read_text())
    assert "KidneyT2 is left out: it is a task of the run" in summary["notes"]
    assert summary["detectors"]["spectral"]["far"]["auroc"] >= 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--shifts=[nois]"], "nois"),
        (["--severities=[6]"], "severities"),
        (["--alpha=2"], "alpha"),
        (["--layers=[model.9]"], "model.9"),
        (["--detectors=[]"], "detectors"),
        (["--casess=2"], "casess"),
        (["--dropout_passes=-1"], "dropout_passes"),
    ],
)
def test_what_cannot_be_is_answered_in_one_line(
    flags: list[str], said: str, run: Path, benchmark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        ood(run, benchmark, *flags)
    assert error.value.code == 2
    answer = capsys.readouterr().err.strip()
    assert said in answer
    assert len(answer.splitlines()) == 1


def test_a_run_must_be_named(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["ood"])
    assert "--run" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["ood", "--run", "runs/nothing"])
    assert "runs/nothing" in capsys.readouterr().err
