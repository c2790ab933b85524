"""Label values: the check of a dataset, the check before training and training itself read the same, or refuse."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from medmtl.data.case import Case, LabelFile
from medmtl.data.check import check_task
from medmtl.data.classes import Classes
from medmtl.data.reading import load_image, load_label
from medmtl.data_tools.facts import Request, look_at
from medmtl.errors import DataError

Save = Callable[..., Path]
SHAPE = (12, 11, 10)
IMAGE = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
TRUTH = np.zeros(SHAPE, np.uint8)
TRUTH[2:7, 3:8, 2:6], TRUTH[7:9, 3:8, 2:6] = 1, 2
COLOURS = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medmtl.data_tools.facts.thumbnail", lambda *_: b"")


class Outcome:
    """What the three of them make of a label.

    Attributes:
        voxels: label value -> voxels that are learnt as it; None where all three refuse it.
        error: the message of the check before training.
        rules: of the errors of data check.
        notes: of data check.
    """

    def __init__(self, save: Save, voxels: NDArray, mask: int | None, declared: set[int] | None) -> None:
        image, label = save("image.nii.gz", IMAGE), save("label.nii", voxels)
        case = Case("one", "one", (image,), (LabelFile(label, mask),))
        _, findings = look_at(Request("T", image.parent, case, None if declared is None else frozenset(declared)))
        self.rules = [finding.rule for finding in findings if finding.severity == "error"]
        self.notes = [finding.message for finding in findings if finding.severity != "error"]
        self.voxels, self.error = None, ""
        try:
            check_task("T", [case], [1, 2], declared)
        except DataError as error:
            self.error = str(error)
            assert "\n" not in self.error
            assert len(self.rules) == 1
            return
        assert not self.rules
        classes = Classes({"one": frozenset({1}), "two": frozenset({2})})
        loaded = load_label(case, classes, load_image(case))
        self.voxels = {value: int((loaded == value).sum()) for value in (1, 2)}


def counted(truth: NDArray) -> dict[int, int]:
    return {value: int((truth == value).sum()) for value in (1, 2)}


@pytest.mark.parametrize("declared", [None, {0, 1, 2}])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_values_within_a_thousandth_of_a_whole_number_are_that_number(
    save_volume: Save, kind: type, declared: set[int] | None
) -> None:
    for seed in range(8):
        draw = np.random.default_rng(seed)
        width = 10.0 ** draw.uniform(-7, -3.05)
        voxels = (TRUTH + draw.uniform(-width, width, SHAPE)).astype(kind)
        found = Outcome(save_volume, voxels, None, declared)
        assert found.voxels == counted(TRUTH), (width, found.error)
        assert any("values near whole numbers are taken for these" in note for note in found.notes)
        width = draw.uniform(2e-3, 0.4)
        voxels = (TRUTH + np.where(TRUTH == 2, -width, 0)).astype(kind)
        found = Outcome(save_volume, voxels, None, declared)
        assert found.voxels is None
        assert f"holds values that are no whole numbers ({kind(2 - width)!s})" in found.error


@pytest.mark.parametrize("factor", [0.999999, 1.000001, 1 + 1e-7, 1.9999])
def test_factors_of_exports_change_no_organ(save_volume: Save, factor: float) -> None:
    found = Outcome(save_volume, np.where(TRUTH == 1, np.float32(factor), 0).astype(np.float32), None, None)
    assert found.voxels == {round(factor): int((TRUTH == 1).sum()), 3 - round(factor): 0}


def test_a_mask_that_was_resampled_is_thresholded_at_a_half(save_volume: Save) -> None:
    for seed in range(4):
        organ = np.random.default_rng(seed).random(SHAPE) < 0.3
        soft = np.clip(gaussian_filter(organ.astype(np.float32), 1) * 2, 0, 1)
        found = Outcome(save_volume, soft, 2, {0, 1, 2})
        assert found.voxels == {1: 0, 2: int((soft >= 0.5).sum())}
        assert "the mask is soft: from 0.5 on it is the organ" in found.notes[0]
        found = Outcome(save_volume, soft * 255, 2, {0, 1, 2})
        assert found.voxels is None
        assert "neither those of a mask nor of a probability" in found.error


def test_a_mask_of_whole_numbers_is_what_lies_above_0_and_its_further_values_are_noted(save_volume: Save) -> None:
    for top in (1, 255):
        found = Outcome(save_volume, (TRUTH > 0).astype(np.uint8) * top, 1, {0, 1})
        assert (found.voxels, found.notes) == ({1: int((TRUTH > 0).sum()), 2: 0}, [])
    found = Outcome(save_volume, TRUTH * 100, 1, {0, 1})
    assert found.voxels == {1: int((TRUTH > 0).sum()), 2: 0}
    assert "has values between 0 and 200 (100): all above 0 are the organ" in found.notes[0]


@pytest.mark.parametrize("mask", [None, 1])
def test_a_last_axis_of_one_is_dropped(save_volume: Save, mask: int | None) -> None:
    found = Outcome(save_volume, TRUTH[..., None], mask, None)
    assert found.voxels == (counted(TRUTH) if mask is None else {1: int((TRUTH > 0).sum()), 2: 0})


def test_one_hot_labels_are_named_as_such(save_volume: Save) -> None:
    found = Outcome(save_volume, np.stack([value == TRUTH for value in range(3)], -1).astype(np.uint8), None, None)
    assert "holds 3 volumes, one-hot: each voxel is 1 in one of them: save the number of that volume" in found.error
    found = Outcome(save_volume, np.stack([TRUTH, TRUTH], -1), None, None)
    assert "holds 2 volumes: use labels of one volume" in found.error


def test_colours_and_complex_numbers_are_refused(save_volume: Save) -> None:
    for voxels in (np.zeros(SHAPE, COLOURS), TRUTH.astype(np.complex64)):
        assert "holds colours or complex numbers" in Outcome(save_volume, voxels, None, None).error


@pytest.mark.parametrize(
    ("voxels", "words"),
    [
        (np.where(TRUTH, TRUTH, np.nan), "no whole numbers (nan)"),
        (np.where(TRUTH, TRUTH, np.inf), "no whole numbers (inf)"),
        (TRUTH * np.float32(0.3), "no whole numbers (0.3, 0.6)"),
        (np.where(TRUTH == 1, np.float32(0.99), 0), "no whole numbers (0.99)"),
        (TRUTH * 3, "holds the values 3, 6, which are not declared (0, 1, 2 are)"),
        (TRUTH * 1.0 - 1, "holds the values -1.0, which are not declared"),
    ],
)
def test_the_message_shows_what_tells_a_value_apart(save_volume: Save, voxels: NDArray, words: str) -> None:
    assert words in Outcome(save_volume, voxels, None, {0, 1, 2}).error
