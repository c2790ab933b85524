"""Another share of images that may be rejected, of the same trained network."""

import math
from types import SimpleNamespace

import pytest
from predict_sample import ALPHA, class_model

from medmtl.errors import ConfigError
from medmtl.models.parts import Parts
from medmtl.ood.detectors import ByTask
from medmtl.ood.mask_rule import MaskRule


@pytest.fixture
def parts() -> Parts:
    model = class_model(Organ={"organ": [3]})
    return Parts(
        model.tasks, model.predictor, [], ALPHA, ByTask(), SimpleNamespace(alpha=ALPHA), MaskRule([], {}, ALPHA), None
    )


def test_another_alpha_leaves_the_first_as_it_was(parts: Parts) -> None:
    other = parts.with_alpha(0.3)
    for each, alpha in ((parts, ALPHA), (other, 0.3)):
        assert (each.alpha, each.ood_detector.alpha, each.mask_rule.alpha) == (alpha, alpha, alpha)


@pytest.mark.parametrize("alpha", [0, 1, -1, 2, math.nan, math.inf])
def test_what_is_no_share_is_refused(parts: Parts, alpha: float) -> None:
    with pytest.raises(ConfigError, match="use a share between 0 and 1"):
        parts.with_alpha(alpha)
