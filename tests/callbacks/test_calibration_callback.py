"""CalibrationCallback: which regions it measures, and on what."""

from typing import Any

import pytest
import torch
from monai.data import MetaTensor

from medmtl.calibration.metrics.bins import bin_volume
from medmtl.calibration.metrics.regions import band, body, likely
from medmtl.callbacks.calibration import CalibrationCallback
from medmtl.errors import ConfigError

SPACING = (1.0, 2.0, 3.0)


def scan() -> tuple[dict[str, Any], dict[str, Any]]:
    """A batch and the outputs of its test step, as the Segmenter leaves them."""
    generator = torch.Generator().manual_seed(0)
    affine = torch.diag(torch.tensor([*SPACING, 1.0]))
    label = torch.zeros(1, 12, 10, 8)
    label[0, 4:7, 4:6, 3:5] = 1
    image = torch.rand(1, 12, 10, 8, generator=generator)
    batch = {"label": MetaTensor(label, affine), "native": MetaTensor(image, affine), "known": None, "dataset": "Liver"}
    return batch, {"probability": torch.rand(12, 10, 8, generator=generator)}


def test_whole_and_band_are_measured_by_default() -> None:
    batch, outputs = scan()
    CalibrationCallback().on_test_batch_end(None, None, outputs, batch, 0)  # type: ignore[arg-type]
    assert list(outputs["calibration"]) == ["whole", "band"]
    organ = batch["label"][0].as_tensor().bool()
    expected = bin_volume(outputs["probability"], organ, band(organ, SPACING))
    assert outputs["calibration"]["band"].to_dict() == expected.to_dict()


def test_regions_of_the_image_and_of_the_prediction_may_be_chosen() -> None:
    batch, outputs = scan()
    CalibrationCallback(regions=["likely", "body"]).on_test_batch_end(None, None, outputs, batch, 0)  # type: ignore[arg-type]
    assert list(outputs["calibration"]) == ["likely", "body"]
    organ, probability = batch["label"][0].as_tensor().bool(), outputs["probability"]
    regions = {"likely": likely(organ, probability), "body": body(batch["native"][0].as_tensor())}
    for name, region in regions.items():
        assert 0 < region.sum() < region.numel()
        assert outputs["calibration"][name].to_dict() == bin_volume(probability, organ, region).to_dict()


def test_voxels_of_unknown_truth_are_in_no_region() -> None:
    batch, outputs = scan()
    known = torch.rand(1, 12, 10, 8, generator=torch.Generator().manual_seed(1)) < 0.5
    CalibrationCallback().on_test_batch_end(None, None, outputs, batch | {"known": known}, 0)  # type: ignore[arg-type]
    organ = batch["label"][0].as_tensor().bool()
    for name, region in (("whole", known[0]), ("band", known[0] & band(organ, SPACING))):
        assert outputs["calibration"][name].to_dict() == bin_volume(outputs["probability"], organ, region).to_dict()
        assert torch.equal(outputs["regions"][name], region)


def test_a_region_that_does_not_exist_is_refused_and_those_that_do_are_named() -> None:
    with pytest.raises(ConfigError, match=r"calibration\.regions: there is no bund.* whole, body, box, band, shell"):
        CalibrationCallback(regions=["whole", "bund"])
