"""Detectors of the output alone: which view they read, and that a volume is unusual on both sides."""

import math
from dataclasses import replace

import pytest

from medmtl.ood.detectors.output import OutputScore, Volume
from medmtl.ood.detectors.synthetic import draw_evidence
from medmtl.ood.evidence.evidence import Evidence

SAMPLE = draw_evidence("A", 0)


def image_of(volume: float, task: str = "A") -> Evidence:
    return replace(SAMPLE, dataset=task, views=(replace(SAMPLE.view, outputs={"volume_ml": volume}),))


def test_an_output_is_read_from_the_recipe_that_fits_best() -> None:
    views = tuple(replace(SAMPLE.view, outputs={"entropy": value}) for value in (0.1, 0.4, 0.2))
    for index, value in enumerate((0.1, 0.4, 0.2)):
        assert OutputScore("entropy").score(replace(SAMPLE, views=views, chosen=index)) == value
    assert OutputScore("entropy").name == "entropy"
    assert OutputScore("entropy", name="doubt").name == "doubt"


def test_a_volume_is_unusual_by_how_far_its_logarithm_is_from_the_nearest_task() -> None:
    small, large = [1.0, 2.0, 4.0], [100.0, 200.0, 400.0]
    detector = Volume()
    detector.fit([image_of(each, "A") for each in small] + [image_of(each, "B") for each in large])
    deviation = math.log(2) * math.sqrt(2 / 3)
    for volume, expected in {2.0: 0, 200.0: 0, 16.0: 3, 0.5: 2, 800.0: 2, 25.0: 3}.items():
        assert detector.score(image_of(volume)) == pytest.approx(expected * math.log(2) / deviation, abs=1e-9)


def test_an_empty_prediction_is_an_unusual_volume() -> None:
    detector = Volume()
    detector.fit([image_of(volume) for volume in (5.0, 6.0, 7.0)])
    assert math.isfinite(detector.score(image_of(0.0)))
    assert detector.score(image_of(0.0)) > detector.score(image_of(1.0)) > detector.score(image_of(6.0))
