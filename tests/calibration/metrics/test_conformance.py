"""Conformance: the metrics of torchmetrics, MONAI and netcal on real predictions of up to 100,000 voxels.

Edge rules, each shown by a test: torchmetrics and netcal close bins below, as medmtl does, but torchmetrics gives p = 1
a bin of its own; MONAI moves its edges up by a few float32 steps, so that an interior edge falls into the bin below it.
They work in float32, or clip at its precision: 5e-5 is what they can be held to, and on the whole hippocampus, 62,000
voxels mostly sure of being background, torchmetrics and MONAI are 7e-5 off already; so a part of it is taken.
"""

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.metrics import CalibrationErrorMetric
from monai.transforms import CenterSpatialCrop
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

from medmtl.calibration.metrics.bins import BinTable, bin_top_label, bin_volume
from medmtl.calibration.metrics.definitions import ace, ece, mce, rmsce
from medmtl.calibration.metrics.streaming import CalibrationMetrics

Predictions = tuple[Tensor, Tensor]
CLASSES = 3
# Two voxels in two bins: ECE is .45 if the edge belongs to the upper bin, .05 if it belongs to the lower one.
AT_EDGE = torch.tensor([0.5, 0.4]), torch.tensor([1, 0])

BINS = 15


@pytest.fixture(scope="module", params=["fields", pytest.param("hippocampus", marks=pytest.mark.real_data)])
def predictions(request: pytest.FixtureRequest) -> Predictions:
    """Class probabilities `(B, 3, H, W, D)` below 1, and class numbers `(B, H, W, D)`."""
    probability, label = smooth_fields() if request.param == "fields" else small_network()
    assert label.numel() <= 100_000
    assert 0.02 < ece(bin_top_label(probability[0], label[0])) < 0.5
    return probability.clamp(max=1 - 1e-6), label


def smooth_fields() -> Predictions:
    """Smooth random fields as logits, too sure of themselves, and a label that noise has roughened."""
    rng = np.random.default_rng(0)
    fields = torch.from_numpy(gaussian_filter(rng.standard_normal((2, CLASSES, 50, 40, 25)), (0, 0, 3, 3, 3)))
    fields = fields / fields.std()
    noise = 0.7 * torch.from_numpy(rng.standard_normal(fields.shape))
    return (5 * fields).softmax(1).float(), (fields + noise).argmax(1)


def small_network() -> Predictions:
    """What a small network makes of a real image: it sees intensity and place, and has learned from one other case.

    Only the middle of the images counts, where the organ is.
    """
    middle = CenterSpatialCrop((24, 36, 24))
    folder = Path(os.environ["MEDMTL_DATA"]) / "HippocampusMR"
    inputs, labels = [], []
    for path in sorted((folder / "labelsTr").glob("*.nii.gz"))[:2]:
        image = torch.from_numpy(nib.load(folder / "imagesTr" / path.name).get_fdata(dtype=np.float32))
        place = torch.stack(torch.meshgrid(*(torch.linspace(-1, 1, side) for side in image.shape), indexing="ij"))
        inputs.append(middle(torch.cat([(image / image.std())[None], place, place.square()])).as_tensor()[None])
        labels.append(middle(torch.from_numpy(np.asarray(nib.load(path).dataobj)).long()[None]).as_tensor())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv3d(7, 16, 1), nn.ReLU(), nn.Conv3d(16, CLASSES, 1))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(inputs[0]), labels[0]).backward()
        optimizer.step()
    with torch.no_grad():
        return (1.5 * network(inputs[1])).softmax(1), labels[1]


def foreground(predictions: Predictions) -> Predictions:
    """All but class 0 against the rest."""
    probability, label = predictions
    return (1 - probability[:, 0]).clamp(0, 1 - 1e-6), (label > 0).long()


@pytest.mark.parametrize(("metric", "norm"), [(ece, "l1"), (rmsce, "l2"), (mce, "max")])
def test_binary_metrics_equal_torchmetrics(predictions: Predictions, metric: type, norm: str) -> None:
    probability, label = foreground(predictions)
    expected = float(binary_calibration_error(probability, label, n_bins=BINS, norm=norm))
    assert metric(bin_volume(probability, label, bins=BINS)) == pytest.approx(expected, abs=5e-5)
    assert expected > 0.005


@pytest.mark.parametrize(("metric", "norm"), [(ece, "l1"), (rmsce, "l2"), (mce, "max")])
def test_top_label_metrics_equal_torchmetrics(predictions: Predictions, metric: type, norm: str) -> None:
    probability, label = predictions
    expected = float(multiclass_calibration_error(probability, label, CLASSES, n_bins=BINS, norm=norm))
    assert metric(top_label(probability, label)) == pytest.approx(expected, abs=5e-5)
    assert expected > 0.005


@pytest.mark.parametrize(("name", "reduction"), [("ece", "expected"), ("ace", "average"), ("mce", "maximum")])
def test_metrics_of_classes_per_case_equal_monai(predictions: Predictions, name: str, reduction: str) -> None:
    probability, label = predictions
    ours = CalibrationMetrics("class_wise", classes=CLASSES, bins=BINS)
    ours.update(probability, label)
    monai = CalibrationErrorMetric(num_bins=BINS, calibration_reduction=reduction, metric_reduction="mean_batch")
    monai(probability, nn.functional.one_hot(label, CLASSES).movedim(-1, 1))
    expected = monai.aggregate().tolist()
    found = ours.compute()
    assert [float(found[f"{name}_class_{c}_per_case"]) for c in range(CLASSES)] == pytest.approx(expected, abs=5e-5)
    assert float(found[f"{name}_per_case"]) == pytest.approx(np.mean(expected), abs=5e-5)
    assert min(expected) > 0.001


@pytest.mark.parametrize(("metric", "theirs"), [(ece, "ECE"), (ace, "ACE"), (mce, "MCE")])
@pytest.mark.parametrize("form", ["binary", "top_label"])
def test_metrics_equal_netcal(predictions: Predictions, metric: type, theirs: str, form: str) -> None:
    netcal = pytest.importorskip("netcal.metrics")
    if form == "binary":
        probability, label = foreground(predictions)
        table, flat = bin_volume(probability, label, bins=BINS), probability.flatten()
    else:
        probability, label = predictions
        table, flat = top_label(probability, label), probability.movedim(1, -1).flatten(0, -2)
    expected = getattr(netcal, theirs)(bins=BINS).measure(flat.double().numpy(), label.flatten().numpy())
    assert metric(table) == pytest.approx(float(expected), abs=5e-5)
    assert expected > 0.005


def test_a_voxel_at_an_edge_falls_into_the_upper_bin_as_in_torchmetrics() -> None:
    assert ece(bin_volume(*AT_EDGE, bins=2)) == pytest.approx(0.45, abs=1e-7)
    assert float(binary_calibration_error(*AT_EDGE, n_bins=2)) == pytest.approx(0.45, abs=1e-6)


def test_a_voxel_at_an_edge_falls_into_the_upper_bin_as_in_netcal() -> None:
    netcal = pytest.importorskip("netcal.metrics")
    p, y = (values.double().numpy() for values in AT_EDGE)
    assert netcal.ECE(bins=2).measure(p, y) == pytest.approx(0.45, abs=1e-6)


def test_a_voxel_at_an_edge_falls_into_the_lower_bin_in_monai() -> None:
    for right in (False, True):
        monai = CalibrationErrorMetric(num_bins=2, right=right)
        monai(*(values.view(1, 1, 2) for values in AT_EDGE))
        assert float(monai.aggregate()) == pytest.approx(0.05, abs=1e-6)


MANY = 9 * 2**21  # voxels, more than the 2^24 at which a float32 counter stops


def calibrated() -> Predictions:
    """Many voxels of probability 1/4, one in four of them foreground."""
    return torch.full((1,), 0.25).expand(MANY), (torch.arange(4) == 0).repeat(MANY // 4)


def test_above_2_to_the_24_voxels_a_bin_perfect_calibration_has_no_error() -> None:
    table = bin_volume(*calibrated())
    assert table.voxels == MANY > 2**24
    assert [ece(table), ace(table), mce(table), rmsce(table)] == [0, 0, 0, 0]


def test_above_2_to_the_24_voxels_a_bin_torchmetrics_is_wrong() -> None:
    # It counts 2^24 voxels of 9 x 2^21, and finds foreground in 9 of 32.
    probability, label = calibrated()
    wrong = binary_calibration_error(probability.contiguous(), label, validate_args=False)
    assert float(wrong) == pytest.approx(9 / 32 - 1 / 4)


def test_above_2_to_the_24_voxels_a_bin_monai_is_wrong() -> None:
    monai = CalibrationErrorMetric(num_bins=15)
    monai(*(values.contiguous().view(1, 1, -1) for values in calibrated()))
    assert float(monai.aggregate()) == pytest.approx(9 / 32 - 1 / 4)


def top_label(probability: Tensor, label: Tensor) -> BinTable:
    """The table of all cases together."""
    tables = [bin_top_label(p, y, bins=BINS) for p, y in zip(probability, label, strict=True)]
    return sum(tables[1:], tables[0])
