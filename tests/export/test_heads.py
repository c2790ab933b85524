"""Networks with an output for each task, in every form: the classes of masks and their probabilities stay the same."""

from pathlib import Path
from typing import get_args

import nibabel
import numpy as np
import pytest
import torch
from exported_sample import TASKS, export, source
from predict_sample import class_model, save_classes

import medmtl
from medmtl.errors import RunError
from medmtl.export.graph import check_equal
from medmtl.export.load import load_exported
from medmtl.export.record import Kind
from medmtl.export.write import Source, check_written
from medmtl.models.parts import Parts
from medmtl.models.sliding_window import VolumePredictor
from medmtl.ood.detectors import ByTask, Fusion, Shape


@pytest.mark.parametrize("kind", get_args(Kind))
def test_each_task_keeps_its_classes(kind: Kind, tmp_path: Path) -> None:
    given = source()
    folder = export(tmp_path / kind, given, kind)
    assert check_written(folder, given) < 1e-5
    save_classes(tmp_path / "scan.nii.gz")
    model, found = class_model("per_task", **TASKS), medmtl.load(folder, device="cpu", trust=True)
    for task in TASKS:
        expected, got = (each.predict(tmp_path / "scan.nii.gz", task=task) for each in (model, found))
        np.testing.assert_array_equal(got.mask, expected.mask)
        assert (got.classes, got.segments) == (expected.classes, expected.segments)
        np.testing.assert_allclose(got.class_probabilities, expected.class_probabilities, atol=1e-5)
    assert len(np.unique(nibabel.load(tmp_path / "scan.nii.gz").get_fdata())) > 2
    assert set(np.unique(found.predict(tmp_path / "scan.nii.gz", task="Parts").mask)) == {0, 2, 4}


def test_a_network_that_gives_something_else_is_noticed(tmp_path: Path) -> None:
    given = source()
    folder = export(tmp_path / "folder", given)
    parts, _ = load_exported(folder, "cpu")
    parts.predictor.network.bias.data += 1e-3
    with pytest.raises(RunError, match="differs from the network by"):
        check_equal(given.parts.predictor, parts.predictor, [])


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_differences_are_shares_of_the_largest_value(scale: float) -> None:
    def network(factor: float) -> VolumePredictor:
        made = torch.nn.Conv3d(1, 1, 1, bias=False)
        torch.nn.init.constant_(made.weight, scale * factor)
        return VolumePredictor(made.eval(), (8, 8, 8), 0.25, 1)

    assert check_equal(network(1), network(1 + 1e-5), []) == pytest.approx(1e-5, rel=0.1)
    assert check_equal(network(0), network(0), []) == 0
    with pytest.raises(RunError, match=r"by 1\.0e-03 in logits"):
        check_equal(network(1), network(1 + 1e-3), [])


def test_a_detector_with_options_comes_back_as_it_was(tmp_path: Path) -> None:
    given = source()
    detector = ByTask(detector=Fusion(members=[Shape()], combine="mean", folds=3))
    given = Source(Parts(**{**vars(given.parts), "detector": detector}), *list(vars(given).values())[1:])
    folder = export(tmp_path / "folder", given)
    found = load_exported(folder, "cpu")[0].detector
    assert isinstance(found, ByTask)
    assert isinstance(found.detector, Fusion)
    assert (found.detector.combine, found.detector.folds) == ("mean", 3)
    assert [type(each) for each in found.detector.members] == [Shape]
