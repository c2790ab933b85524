"""check_detector: the contract that every detector must fulfil, a user's own too, for tests."""

import io
import math
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch

from medmtl.contract import requirements
from medmtl.ood.detectors.base import Detector
from medmtl.ood.detectors.synthetic import CHANNELS, TASKS, draw_evidence, draw_training, without_layer
from medmtl.ood.evidence.evidence import Evidence
from medmtl.ood.random_state import global_random_state

PATIENTS = range(50, 54)  # of each task, none of them a training patient
LEAST_AUROC = 0.9
STREAMED_TOLERANCE = 1e-3  # of the difference between shifted and in-distribution scores


def check_detector(detector: Detector) -> None:
    """Check a detector on synthetic evidence of three tasks: the contract, for tests.

    Args:
        detector: not fitted; it is copied, and stays as it is.

    Raises:
        AssertionError: names the requirement that is not met.
        DataError: of the detector, where it cannot be fitted.
    """
    quantity = detector.quantity
    _require(detector, re.fullmatch(r"[\w.-]+", quantity.key), "has a name of letters, digits, '_', '-' or '.'")
    _require(detector, quantity.label and quantity.reference, "has a label and a reference")

    def draw(**shift: Any) -> list[Evidence]:
        return [_served(detector, draw_evidence(task, patient, **shift)) for task in TASKS for patient in PATIENTS]

    training = [_served(detector, case) for case in draw_training()]
    inside, outside = draw(), draw(noise=1.0, gain=1.5, doubt=3.0)
    fitted = deepcopy(detector)
    missing = fitted.missing(training[0])
    _require(
        detector, not missing, f"is served what it needs: {missing} is missing, see needs_windows, needs_thumbnail"
    )
    state = global_random_state()
    fitted.fit(training)
    scores = [fitted.score(image) for image in [*inside, *outside]]
    same = state == global_random_state()
    _require(detector, same, "leaves the global random numbers of torch and numpy as they are")
    _require(detector, all(isinstance(s, float) and math.isfinite(s) for s in scores), "gives finite floats as scores")
    pairs = [(one < other) + (one == other) / 2 for one in scores[: len(inside)] for other in scores[len(inside) :]]
    auroc = sum(pairs) / len(pairs)
    _require(detector, auroc > LEAST_AUROC, f"scores shifted images higher than held-out ones (AUROC {auroc:.2f})")

    _require(detector, scores == [fitted.score(image) for image in [*inside, *outside]], "gives the same score twice")
    torch.rand(3)
    again = deepcopy(detector)
    again.fit(training)
    _require(detector, scores == [again.score(image) for image in [*inside, *outside]], "gives the same when refitted")
    reloaded = deepcopy(detector)
    reloaded.load_state_dict(_through_a_file(detector, fitted.state_dict()))
    same = scores == [reloaded.score(image) for image in [*inside, *outside]]
    _require(detector, same, "scores the same after its state was saved and loaded")

    spread = math.fsum(scores[len(inside) :]) / len(outside) - math.fsum(scores[: len(inside)]) / len(inside)
    streamed = [fitted.score(image) for image in draw(streamed=True)]
    apart = max(abs(one - other) for one, other in zip(scores, streamed, strict=False))
    _require(detector, apart <= STREAMED_TOLERANCE * abs(spread), "scores streamed windows as the same windows stacked")
    for part, image in _incomplete(inside[0]).items():
        _check_missing(detector, fitted, part, image)


def _served(detector: Detector, image: Evidence) -> Evidence:
    """Evidence with the windows and the thumbnail only where the detector needs them, as in a test."""
    kept = image if detector.needs_thumbnail else replace(image, thumbnail=None)
    return kept if detector.needs_windows else _without_windows(kept)


def _without_windows(image: Evidence) -> Evidence:
    layers = {name: replace(kept, windows=None) for name, kept in image.view.layers.items()}
    return replace(image, views=(replace(image.view, layers=layers),))


def _incomplete(image: Evidence) -> dict[str, Evidence]:
    """What was left out -> the image without it."""
    return {
        **{f"layer {layer}": without_layer(image, layer) for layer in CHANNELS},
        "windows": _without_windows(image),
        "thumbnail": replace(image, thumbnail=None),
        "description of the mask": replace(image, views=(replace(image.view, shape=None),)),
        **{
            f"output {name}": replace(image, views=(replace(image.view, outputs=_without(image.view.outputs, name)),))
            for name in image.view.outputs
        },
    }


def _without(outputs: Mapping[str, float], name: str) -> dict[str, float]:
    return {key: value for key, value in outputs.items() if key != name}


def _check_missing(detector: Detector, fitted: Detector, part: str, image: Evidence) -> None:
    named = fitted.missing(image)
    _require(detector, "\n" not in named, f"names what is missing in one line (without {part})")
    if named:
        _require(detector, part in named, f"names what is missing: without {part} it names {named!r}")
        return
    try:
        fitted.score(image)
    except Exception as error:
        _require(detector, False, f"names {part} in `missing` before it fails ({error!r})")


def _through_a_file(detector: Detector, state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    _require(detector, _is_plain(state), "has a state of text, numbers and tensors")
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def _is_plain(state: Any) -> bool:
    if isinstance(state, Mapping):
        return all(map(_is_plain, state.keys())) and all(map(_is_plain, state.values()))
    if isinstance(state, Sequence) and not isinstance(state, str):
        return all(map(_is_plain, state))
    return state is None or isinstance(state, str | int | float | torch.Tensor)


def _require(detector: Detector, met: object, words: str) -> None:
    requirements(detector, "a detector")(met, words)
