"""`data.calibration`: temperatures and threshold come from patients who had no other part."""

import json
from pathlib import Path

from medmtl.cli import main
from medmtl.runs.checkpoint import read_checkpoint

SHARES = ["--data.val=0.3", "--data.test=0", "--data.calibration=0.3"]  # of three patients a task


def test_fit_and_calibrate_keep_the_calibration_part_apart(tiny: Path, workplace: Path) -> None:
    run = workplace / "runs" / "apart"
    main(["fit", "--config", str(tiny), "--run", str(run), *SHARES])
    splits = json.loads((run / "splits.json").read_text())
    best = run / "checkpoints" / "best.ckpt"

    def calibrated_on() -> tuple[set[tuple[str, str]], int]:
        state = read_checkpoint(best)["callbacks"]
        held_out = {(task, case) for task, _, case, _ in state["SpectralCallback"]["held_out"]}
        return held_out, state["ScalingCallback"]["single"]["cases"]

    apart = {(task, case) for task, parts in splits.items() for case in parts["calibration"]}
    assert apart
    assert all(
        set(parts["calibration"]).isdisjoint([*parts["train"], *parts["val"], *parts["test"]])
        for parts in splits.values()
    )
    assert calibrated_on() == (apart, len(apart))
    assert read_checkpoint(best)["callbacks"]["SpectralCallback"]["reused"] is False
    scaling = read_checkpoint(best)["callbacks"]["ScalingCallback"]
    main(["calibrate", "--run", str(run)])
    assert calibrated_on() == (apart, len(apart))
    again = read_checkpoint(best)["callbacks"]["ScalingCallback"]
    assert {task: own["nll_after"] for task, own in again["tasks"].items()} == {
        task: own["nll_after"] for task, own in scaling["tasks"].items()
    }


def test_without_that_part_the_checkpoint_keeps_that_validation_images_had_another_use(trained: Path) -> None:
    state = read_checkpoint(trained / "checkpoints" / "best.ckpt")["callbacks"]["SpectralCallback"]
    splits = json.loads((trained / "splits.json").read_text())
    assert {(task, case) for task, _, case, _ in state["held_out"]} == {
        (task, case) for task, parts in splits.items() for case in parts["val"]
    }
    assert state["reused"] is True
