"""An image whose task is told is compared with images of that task: telling the task does not make the verdict weaker.

Few held-out people a task, so that their scores are pooled, and tasks on which the detector has different scales. The
images are plain numbers, their entropies, by which the detectors score them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from medmtl.ood.detectors.base import Detector
from medmtl.ood.detectors.by_task import ByTask
from medmtl.ood.detectors.fusion import Fusion
from medmtl.ood.detectors.output import OutputScore
from medmtl.ood.evidence.evidence import Evidence, LayerEvidence, View
from medmtl.ood.verdict import ConformalDetector, Given

ALPHA, REPETITIONS, IMAGES = 0.05, 40, 6
LAYER = {"layer": LayerEvidence(torch.diag(torch.tensor([2.0, 1.0])).double(), torch.zeros(2).double(), 8)}
HISTOGRAM = torch.full((4,), 0.25, dtype=torch.float64)


@dataclass(frozen=True)
class Drawn:
    """A task whose images have normal entropies, and how many people it has."""

    mean: float
    deviation: float
    training: int
    held_out: int

    def images(
        self, rng: np.random.Generator, task: str, count: int, part: str, views: Sequence[str]
    ) -> list[Evidence]:
        """Images of as many people."""
        entropies = rng.normal(self.mean, self.deviation, count)
        return [image(f"{part} {number}", entropy, views, task) for number, entropy in enumerate(entropies)]


def image(patient: str, entropy: float, views: Sequence[str], task: str = "") -> Evidence:
    """An image of some entropy as the preprocessings of some tasks prepare it."""
    outputs = {"entropy": float(entropy), "max_softmax": 0.0}
    prepared = tuple(View(view, LAYER, outputs, HISTOGRAM) for view in views)
    return Evidence(task, f"{task} {patient}", f"{task} {patient}", prepared, None)


@dataclass(frozen=True)
class Shares:
    """Shares of images that are flagged with their task told: in-distribution ones of the task, and OOD ones.

    Attributes:
        alarms: of in-distribution images.
        found: of OOD images.
        untold: of these OOD images with nothing told.
        lost: of these OOD images, those flagged with nothing told alone.
    """

    alarms: float
    found: float
    untold: float
    lost: float


def shares(detector: Detector, tasks: Mapping[str, Drawn], told: str, shift: float) -> Shares:
    """Over many draws of people.

    Args:
        detector: fitted in each draw.
        tasks: what is drawn.
        told: the task that is told.
        shift: of OOD images from the mean of that task, in its deviations.
    """
    rng, own, found = np.random.default_rng(0), tasks[told], []
    for _ in range(REPETITIONS):
        training = [
            each for name, task in tasks.items() for each in task.images(rng, name, task.training, "training", [name])
        ]
        held_out = [
            each for name, task in tasks.items() for each in task.images(rng, name, task.held_out, "held", [*tasks])
        ]
        fitted = ConformalDetector.fit(detector, training, held_out, ALPHA)
        assert fitted.rule.promise == "the mix of tasks"
        for entropy in rng.normal(own.mean, own.deviation, IMAGES):
            ood, given = entropy + shift * own.deviation, Given("task", (told,))
            alarm, detected = (fitted(image("new", each, [told]), given).rejected for each in (entropy, ood))
            found.append((alarm, detected, fitted(image("new", ood, [*tasks])).rejected))
    alarms, detected, untold = np.array(found, dtype=bool).T
    return Shares(*(float(each.mean()) for each in (alarms, detected, untold, untold & ~detected)))


HIGHEST = ALPHA + 3 * (ALPHA * (1 - ALPHA) / (REPETITIONS * IMAGES)) ** 0.5  # of a rate of alpha


def test_an_ood_image_told_as_of_a_uniform_task_is_flagged_though_others_have_such_scores() -> None:
    # Eight deviations above the uniform task is below the mean of the varied ones, whose scores share the threshold.
    tasks = {"Uniform": Drawn(1.0, 0.05, 18, 8), "Varied": Drawn(2.0, 0.5, 18, 8), "Other": Drawn(2.0, 0.5, 18, 8)}
    found = shares(ByTask(detector=OutputScore("entropy")), tasks, "Uniform", shift=8)
    assert found.found > 0.95
    assert found.alarms <= HIGHEST


def test_a_task_of_few_people_does_not_raise_the_threshold_of_another_that_is_told() -> None:
    # All tasks are alike, but the scale of one is estimated from four training people: some of its scores are high.
    tasks = {"Told": Drawn(2.0, 0.3, 18, 8), "Large": Drawn(2.0, 0.3, 36, 12), "Small": Drawn(2.0, 0.3, 4, 5)}
    found = shares(ByTask(detector=Fusion(members=[OutputScore("entropy")])), tasks, "Told", shift=4)
    assert found.lost == 0
    assert found.found >= found.untold
    assert found.found > 0.85
    assert found.alarms <= HIGHEST
