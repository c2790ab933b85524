"""Shape: compares masks with those of each task, says why, and never passes an empty mask."""

from dataclasses import replace

import pytest
import torch

from medmtl.errors import DataError
from medmtl.ood.detectors.shape import LIMIT, Shape
from medmtl.ood.detectors.synthetic import draw_evidence, draw_training
from medmtl.ood.evidence.evidence import Evidence
from medmtl.ood.evidence.shape import DESCRIPTORS


def with_shape(image: Evidence, **values: float) -> Evidence:
    shape = {**(image.view.shape or {}), **values}
    return replace(image, views=(replace(image.view, shape=shape),))


@pytest.fixture(scope="module")
def detector() -> Shape:
    found = Shape()
    found.fit(draw_training(patients=12))
    return found


def test_the_score_is_the_root_mean_square_of_the_robust_deviations(detector: Shape) -> None:
    training = [case for case in draw_training(patients=12) if case.dataset == "LiverCT"]
    image = draw_evidence("LiverCT", 50)
    squares = []
    for row, (key, descriptor) in enumerate(DESCRIPTORS.items()):
        values = torch.tensor([descriptor.scaled(case.view.shape[key]) for case in training], dtype=torch.float64)
        place = list(detector.preprocessings).index("LiverCT")
        centre, spread = values.median(), detector.fitted["spread"][place, row]
        mad = 1.4826 * (values - centre).abs().median()
        assert spread >= max(mad, values.std(correction=0) / 2) - 1e-12
        squares.append(min(abs(descriptor.scaled(image.view.shape[key]) - centre) / spread, LIMIT) ** 2)
    assert detector.score(image) == pytest.approx(float(torch.stack(squares).mean().sqrt()))


def test_an_empty_mask_is_as_far_as_any_and_says_so(detector: Shape) -> None:
    image = draw_evidence("LiverCT", 50)
    empty = replace(image, views=(replace(image.view, shape={}),))
    assert detector.score(empty) == detector.score_as(empty, "LiverCT") == LIMIT
    assert [reason.text for reason in detector.reasons(empty, "LiverCT")] == ["the mask is empty"]


def test_a_descriptor_outside_the_range_of_training_is_named_in_its_unit(detector: Shape) -> None:
    image = with_shape(draw_evidence("LiverCT", 50), parts=17.0)
    (reason,) = [reason for reason in detector.reasons(image, "LiverCT") if reason.key == "parts"]
    values = [case.view.shape["parts"] for case in draw_training(patients=12) if case.dataset == "LiverCT"]
    low, high = f"{min(values):.0f}", f"{max(values):.0f}"
    ends = low if low == high else f"{low} to {high}"
    assert reason.text == f"more parts: parts 17; masks of LiverCT in training have {ends}"
    assert reason.deviation >= 3
    assert detector.reasons(draw_training(patients=12)[12], "LiverCT") == []  # a training image


def test_an_image_without_descriptors_cannot_be_scored(detector: Shape) -> None:
    image = draw_evidence("LiverCT", 50)
    bare = replace(image, views=(replace(image.view, shape=None),))
    assert detector.missing(bare) == "description of the mask"
    with pytest.raises(DataError, match="description of the mask"):
        Shape().fit([bare])


def test_a_task_of_empty_masks_is_refused() -> None:
    cases = [replace(case, views=(replace(case.view, shape={}),)) for case in draw_training(("LiverCT",), patients=3)]
    with pytest.raises(DataError, match="all masks of LiverCT in training are empty"):
        Shape().fit(cases)
