"""Leave one task out: how well detectors notice a task that they were not fitted to, without any OOD image.

This is how layers, detectors and their combination are chosen: on training and validation images alone, so that far,
near and shifted images stay unseen. The network has been trained on all tasks, which makes it easier than an unknown
image is.
"""

import json
import logging
import statistics
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from medmtl.errors import DataError
from medmtl.files import write_text
from medmtl.ood.detectors import Detector
from medmtl.ood.evidence.evidence import Evidence
from medmtl.ood.metrics.detection import detection_metrics
from medmtl.ood.nearest import nearest_task, with_preprocessings
from medmtl.ood.signature import SignatureBank, signature

logger = logging.getLogger(__name__)


def leave_one_task_out(
    detectors: Sequence[Detector], training: Sequence[Evidence], held_out: Sequence[Evidence]
) -> dict[str, dict[str, float]]:
    """AUROC of the validation images of each task against those of the others, by detectors fitted to the others.

    Args:
        detectors: not fitted.
        training: the training images, each with its own task's view.
        held_out: the validation images, with a view for every preprocessing.

    Returns:
        Detector -> task that was left out -> AUROC; detectors that cannot be fitted, and tasks that share their
        preprocessing with no other, are left out.
    """
    tasks = list(dict.fromkeys(case.dataset for case in training))
    found: dict[str, dict[str, float]] = {detector.name: {} for detector in detectors}
    for left_out in tasks if len(tasks) > 1 else []:
        others = [case for case in training if case.dataset != left_out]
        preprocessings = {case.dataset: case.view.preprocessing for case in others}
        bank = SignatureBank.fit([(case.dataset, case.case, signature(case.view.grams)) for case in others])
        images = []
        for image in held_out:
            seen = with_preprocessings(image, set(preprocessings.values()))
            images.append(seen.choosing(nearest_task(seen, bank, preprocessings).view))
        outside = np.array([image.dataset == left_out for image in images])
        for detector in detectors:
            fitted = deepcopy(detector)
            try:
                if fitted.missing(others[0]) or fitted.missing(images[0]):
                    continue
                fitted.fit(others)
            except DataError as error:
                logger.warning("detector %s without %s: %s", detector.name, left_out, error)
                continue
            scores = np.array([fitted.score(image) for image in images])
            found[detector.name][left_out] = detection_metrics(scores[~outside], scores[outside])["auroc"]
    return {name: by_task for name, by_task in found.items() if by_task}


def write_left_out(path: Path, found: Mapping[str, Mapping[str, float]], facts: Mapping[str, Any]) -> None:
    """Write the AUROC of every detector and left-out task, with their mean, as JSON."""
    rows = {name: {"mean": statistics.fmean(own.values()), "tasks": dict(own)} for name, own in found.items()}
    write_text(path, json.dumps({"auroc": rows, "facts": dict(facts)}, indent=1) + "\n")


def print_left_out(console: Console, found: Mapping[str, Mapping[str, float]]) -> None:
    """A table, the best mean first."""
    tasks = list(dict.fromkeys(task for own in found.values() for task in own))
    table = Table("AUROC without", *tasks, "mean")
    for name, own in sorted(found.items(), key=lambda item: -statistics.fmean(item[1].values())):
        cells = [f"{own[task]:.3f}" if task in own else "-" for task in tasks]
        table.add_row(name, *cells, f"{statistics.fmean(own.values()):.3f}")
    console.print(table)
