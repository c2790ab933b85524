"""The nearest task: that of the nearest signature, unless an OOD score speaks clearly for another."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from medmtl.ood.detectors.base import Detector
from medmtl.ood.detectors.spectral import Spectral
from medmtl.ood.detectors.synthetic import TASKS, draw_evidence, draw_training
from medmtl.ood.evidence.evidence import Evidence
from medmtl.ood.nearest import CLEARLY, nearest_task
from medmtl.ood.signature import SignatureBank, signature

TRAINING = draw_training(patients=4)
BANK = SignatureBank.fit([(case.dataset, case.case, signature(case.view.grams)) for case in TRAINING])
PREPROCESSINGS = {task: f"preprocessing of {task}" for task in TASKS}
FIRST, SECOND = TASKS[:2]


class Told(Detector):
    """Gives the scores that it was told."""

    name = "told"

    def __init__(self, scores: Mapping[str, float]) -> None:
        self.scores = scores

    def fit(self, cases: Sequence[Evidence]) -> None:
        """Nothing is fitted."""

    def score(self, image: Evidence) -> float:
        return min(self.scores.values())

    def task_scores(self, image: Evidence) -> dict[str, float]:
        return dict(self.scores)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing was fitted."""


def image() -> Evidence:
    """An image of the first task, prepared as for every task."""
    own = draw_evidence(FIRST, 300)
    others = [replace(draw_evidence(FIRST, 300, gain=3).view, preprocessing=PREPROCESSINGS[task]) for task in TASKS[1:]]
    return replace(own, views=(own.view, *others))


@pytest.mark.parametrize("detector", [None, Spectral(), Told({FIRST: 4.0, SECOND: 4.0 - CLEARLY})])
def test_the_nearest_signature_names_the_task_where_no_score_is_clearly_lower(detector: Detector | None) -> None:
    found = nearest_task(image(), BANK, PREPROCESSINGS, detector=detector)
    assert (found.nearest.task, image().views[found.view].preprocessing) == (FIRST, PREPROCESSINGS[FIRST])


def test_a_clearly_lower_score_as_another_task_overrules_the_signature() -> None:
    told = Told({FIRST: 4.1, SECOND: 4.0 - CLEARLY})
    found = nearest_task(image(), BANK, PREPROCESSINGS, detector=told)
    assert (found.nearest.task, image().views[found.view].preprocessing) == (SECOND, PREPROCESSINGS[SECOND])
    # Signature and training image are then those of that task.
    own = signature(image().views[found.view].grams, BANK.floor)
    assert found.nearest == BANK.nearest(own, tasks=[SECOND])


def test_scores_as_tasks_that_are_not_possible_do_not_count() -> None:
    told = Told({FIRST: 40.0, SECOND: 0.0})
    assert nearest_task(image(), BANK, PREPROCESSINGS, [FIRST], told).nearest.task == FIRST
