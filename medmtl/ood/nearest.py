"""The nearest task of an image, by spectral signature and by OOD scores."""

from collections.abc import Container, Mapping
from dataclasses import replace
from typing import NamedTuple

from medmtl.errors import DataError
from medmtl.ood.detectors.base import Detector
from medmtl.ood.evidence.evidence import Evidence
from medmtl.ood.signature import Nearest, Signature, SignatureBank, signature

# By so many standard deviations an OOD score as one of another task must be lower to overrule the signature; chosen on
# validation images of `multitask-open.yaml`.
CLEARLY = 10.0


class NearestTask(NamedTuple):
    """The nearest task of an image.

    Attributes:
        view: number of the view with the preprocessing of that task, from 0.
        signature: the image's signature in this view.
        nearest: the nearest training image by signature: of that task, or of all with that preprocessing.
    """

    view: int
    signature: Signature
    nearest: Nearest


def nearest_task(
    image: Evidence,
    bank: SignatureBank,
    preprocessings: Mapping[str, str],
    tasks: Container[str] | None = None,
    detector: Detector | None = None,
) -> NearestTask:
    """The nearest task, each task's training images being compared under the task's own preprocessing.

    It is that of the nearest signature, unless the OOD score of the image as one of another task is clearly lower. The
    lowest score alone would not do: a varied task is near to many images.

    Args:
        image: with a view a preprocessing.
        bank: signatures of the training images.
        preprocessings: of the tasks, as text.
        tasks: the possible tasks; all if None.
        detector: fitted to the images of the bank; None: by signature alone.

    Raises:
        DataError: the image has no view with the preprocessing of a task.
    """
    found = []
    for index, view in enumerate(image.views):
        same = [
            task
            for task, preprocessing in preprocessings.items()
            if preprocessing == view.preprocessing and (tasks is None or task in tasks)
        ]
        if same:
            own = signature(view.grams, bank.floor)
            found.append(NearestTask(index, own, bank.nearest(own, tasks=same)))
    if not found:
        raise DataError(f"{image.case} was prepared with no preprocessing of a task")
    by_signature = min(found, key=lambda each: each.nearest.oodm)
    scores = {} if detector is None else detector.task_scores(image)
    scores = {task: score for task, score in scores.items() if tasks is None or task in tasks}
    lowest = min(scores, key=scores.__getitem__, default=by_signature.nearest.task)
    if lowest == by_signature.nearest.task or scores[by_signature.nearest.task] - scores[lowest] <= CLEARLY:
        return by_signature
    return nearest_task(image, bank, preprocessings, (lowest,))


def with_preprocessings(image: Evidence, preprocessings: Container[str]) -> Evidence:
    """An image with the views of some preprocessings alone."""
    return replace(image, views=tuple(view for view in image.views if view.preprocessing in preprocessings), chosen=0)
