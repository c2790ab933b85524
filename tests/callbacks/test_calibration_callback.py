"""CalibrationCallback: which regions it measures, on what, before and after scaling, and by which metrics."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from segmentation_sample import SPACING, segmentation

from medmtl.calibration.metrics.bins import BinTable, bin_volume
from medmtl.calibration.metrics.definitions import METRICS, BinMetric
from medmtl.calibration.metrics.regions import band, body, likely
from medmtl.callbacks.calibration import CalibrationCallback, MeasuredCase
from medmtl.errors import ConfigError
from medmtl.models.scored import ScoredScan, Segmentation


def measured(own: Segmentation, **options: Any) -> MeasuredCase:
    callback = CalibrationCallback(**options)
    callback.on_test_batch_end(None, None, ScoredScan({}, own, None), {"dataset": "Liver"}, 3)  # type: ignore[arg-type]
    (case,) = callback.measured.values()
    assert case.task == "Liver"
    return case


def as_dicts(tables: Any) -> dict[str, Any]:
    return {region: table.to_dict() for region, table in tables.items()}


def test_whole_and_band_are_measured_by_default() -> None:
    own = segmentation()
    case = measured(own)
    expected = {
        "whole": bin_volume(own.probability, own.label),
        "band": bin_volume(own.probability, own.label, band(own.label, SPACING)),
    }
    assert as_dicts(case.calibration) == as_dicts(expected)
    assert case.calibration_scaled == {}


def test_regions_of_the_image_and_of_the_prediction_may_be_chosen() -> None:
    own = segmentation()
    case = measured(own, regions=["likely", "body"])
    regions = {"likely": likely(own.label, own.probability), "body": body(own.image.as_tensor())}
    assert list(case.calibration) == list(regions)
    for name, region in regions.items():
        assert 0 < region.sum() < region.numel()
        assert case.calibration[name].to_dict() == bin_volume(own.probability, own.label, region).to_dict()


def test_voxels_of_unknown_truth_are_in_no_region() -> None:
    known = torch.rand(12, 10, 8, generator=torch.Generator().manual_seed(1)) < 0.5
    own = segmentation(known=known)
    case = measured(own)
    for name, region in (("whole", known), ("band", known & band(own.label, SPACING))):
        assert case.calibration[name].to_dict() == bin_volume(own.probability, own.label, region).to_dict()
        assert torch.equal(own.region(name), region)


def test_after_scaling_the_same_voxels_are_binned() -> None:
    plain = segmentation()
    own = replace(plain, scaled=plain.probability.square())
    case = measured(own, regions=["likely"], bins=7)
    region = likely(own.label, own.probability)
    assert case.calibration["likely"].to_dict() == bin_volume(own.probability, own.label, region, 7).to_dict()
    assert own.scaled is not None
    assert case.calibration_scaled["likely"].to_dict() == bin_volume(own.scaled, own.label, region, 7).to_dict()


def test_an_image_without_a_task_is_not_measured() -> None:
    callback = CalibrationCallback()
    for outputs in (None, ScoredScan({}, None, None)):
        callback.on_test_batch_end(None, None, outputs, {"dataset": "Other"}, 0)  # type: ignore[arg-type]
    assert callback.measured == {}


class Voxels(BinMetric):
    key, label, higher_is_better, digits = "voxels", "voxels", None, 0

    def __call__(self, table: BinTable) -> float:
        return float(table.voxels)


def test_metrics_of_one_s_own_stand_beside_the_built_in_ones() -> None:
    assert list(CalibrationCallback(metrics=[Voxels()]).metrics) == [*METRICS, "voxels"]
    assert list(CalibrationCallback().metrics) == list(METRICS)
    for key in ("dice", "entropy", "ece"):
        taken = Voxels()
        taken.key = key
        with pytest.raises(ConfigError, match=rf"calibration\.metrics: the key {key} .*is taken"):
            CalibrationCallback(metrics=[taken])


def test_a_region_that_does_not_exist_is_refused_and_those_that_do_are_named() -> None:
    with pytest.raises(ConfigError, match=r"calibration\.regions: there is no bund.* whole, body, box, band, shell"):
        CalibrationCallback(regions=["whole", "bund"])
